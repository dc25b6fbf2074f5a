"""Steps as long as their error allows: the control of every embedded pair.

Hairer, Norsett & Wanner 1993, Solving Ordinary Differential Equations I, section II.4. One picture
at a time: its steps must not depend on the others of its batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.sampling import Prediction

FACTOR, LEAST, MOST = 0.9, 0.2, 5.0  # of eq. 4.13: fac, facmin, facmax

Ask = Callable[[Tensor, float], Prediction]  # (x, u)
# (x, its prediction, u, u_next) -> (x_next, the same by the embedded method, the prediction at
# x_next where that was a stage)
Pair = Callable[[Tensor, Prediction, float, float], tuple[Tensor, Tensor, Prediction | None]]


@dataclass(frozen=True)
class Control:
    """What each value of x may be off by a step: atol + rtol * |x| (eq. 4.10).

    order: the lower one of the pair's. most_steps: that may be tried between two sigmas.
    """

    rtol: float
    atol: float
    order: int
    most_steps: int

    def norm(self, difference: Tensor, x: Tensor) -> float:
        """The root mean square in units of what x may be off by (eq. 4.11)."""
        with torch.no_grad():
            return (difference / (x.abs() * self.rtol + self.atol)).square().mean().sqrt().item()

    def factor(self, error: float) -> float:
        """How much longer the next step may be, before facmax (eq. 4.13)."""
        if not error > 0:  # none, or not a number
            return MOST
        return max(LEAST, FACTOR * error ** (-1 / (self.order + 1)))

    def first(self, y: float, slope: float, move: Callable[[float], float]) -> float:
        """The first step's length (the algorithm "starting step size" of section II.4).

        y, slope: their norms. move: of a length, the norm of the slope's change over such a step by
        Euler. Without it a step over a whole schedule may look good to a pair whose stages all see
        the same.
        """
        h_0 = 0.01 * y / slope if min(y, slope) >= 1e-5 else 1e-6
        steepest = max(slope, move(h_0) / h_0)
        if steepest <= 1e-15:
            return max(1e-6, h_0 * 1e-3)
        return min(100 * h_0, (0.01 / steepest) ** (1 / (self.order + 1)))


class Way(NamedTuple):
    """A picture carried over an interval."""

    x: Tensor  # [1,C,H,W] at its end
    error: Tensor  # [1,C,H,W], the sum of its steps' |x - x by the embedded method|
    length: float  # of the step after it, in u


def integrate(
    pair: Pair,
    ask: Ask,
    x: Tensor,
    here: Prediction,
    begin: float,
    end: float,
    length: float,
    control: Control,
) -> Way:
    """x from u = begin to u = end. here: the prediction at x. length: of the first step, > 0.

    An error that is not finite is no matter of the step's length: the step stands. Raises
    InputError where more than most_steps are tried.
    """
    u, summed, most = begin, torch.zeros_like(x), MOST
    for _ in range(control.most_steps):
        rest = abs(end - u)
        last = not length < (1 - 1e-9) * rest
        taken = rest if last else length
        u_next = end if last else u + math.copysign(taken, end - begin)
        x_next, embedded, there = pair(x, here, u, u_next)
        apart = (x_next - embedded).detach()
        error = control.norm(apart, torch.maximum(x.abs(), x_next.abs()))
        factor = control.factor(error)
        if 1 < error < math.inf:
            length, most = taken * min(factor, 1.0), 1.0  # facmax is 1 after a refused step
            continue
        summed = summed + apart.abs()
        length, most = max(taken * min(factor, most), length if last else 0.0), MOST
        if last:
            return Way(x_next, summed, length)
        x, u = x_next, u_next
        here = ask(x, u) if there is None else there
    done = (u - begin) / (end - begin)
    raise InputError(
        f"{control.most_steps} steps were tried, and {done:.1%} of the interval is done: raise "
        "rtol, atol or most_steps"
    )
