"""A solver that chooses its own steps, by an estimate of its error."""

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from sdcore.keywords import Range
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.table_entry import Entry

Slope = Callable[[Tensor, float], Tensor]  # (x, sigma) -> eps


def dpm_23(ask: Slope, x: Tensor, eps: Tensor, sigma: float, h: float) -> tuple[Tensor, Tensor]:
    """One step over h of lambda = -log sigma by DPM-Solver-2 and -3, which share their calls.

    Lu et al. 2022 (arXiv 2206.00927, algorithm 1 with r_1 = 1/3, and algorithm 2 with r_2 = 2/3).
    """

    def to(r: float, *terms: tuple[float, Tensor]) -> Tensor:
        scale = sigma * math.exp(-r * h)
        x_r = torch.add(x, eps, alpha=-scale * math.expm1(r * h))
        for factor, difference in terms:
            x_r = torch.add(x_r, difference, alpha=-scale * factor)
        return x_r

    def phi_2(r: float) -> float:
        return math.expm1(r * h) / (r * h) - 1

    first = ask(to(1 / 3), sigma * math.exp(-h / 3)) - eps
    second = ask(to(2 / 3, (2 * phi_2(2 / 3), first)), sigma * math.exp(-h * 2 / 3)) - eps
    return to(1, (1.5 * math.expm1(h), first)), to(1, (1.5 * phi_2(1), second))


def integrate(
    ask: Slope, x: Tensor, eps: Tensor, sigma: float, sigma_next: float, rtol: float, atol: float
) -> Tensor:
    """x [1,C,H,W] at sigma_next > 0, in as many steps as the tolerances need; eps is at (x, sigma).

    The error is the root mean square of the pair's difference, in units of the larger of atol and
    rtol |x|: above 1 the step is halved, below 0.1 the next one is doubled (it grows with its third
    power). So the steps do not change with x by little, and gradients hold.
    """
    span = math.log(sigma / sigma_next)
    h, done = span, 0.0
    while True:
        rest = span - done
        h = rest if abs(h) > (1 - 1e-9) * abs(rest) else h
        low, high = dpm_23(ask, x, eps, sigma * math.exp(-done), h)
        scale = torch.maximum(low.abs(), x.abs()).mul(rtol).clamp(min=atol)
        error = ((low - high) / scale).square().mean().sqrt().item()
        if 1 < error < math.inf and abs(h) > 1e-4:
            h /= 2
            continue
        if h == rest:
            return high
        x, done = high, done + h
        h = 2 * h if error < 0.1 else h
        eps = ask(x, sigma * math.exp(-done))


def dpm_adaptive(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    rtol: Annotated[float, Range(1e-6, 1)] = 0.05,
    atol: Annotated[float, Range(1e-6, 1)] = 0.0078,
    least_sigma: Annotated[float, Range(1e-6, 1)] = 0.0292,
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver-23 with adaptive steps (Lu et al. 2022, arXiv 2206.00927, appendix C).

    In each interval it tries one third-order step and takes shorter ones where the error, relative
    rtol and absolute atol, is too large. Into sigma 0 it goes to least_sigma (of SD's training
    table) in this way, and from there to x0. Each picture of a batch has steps of its own, so that
    it does not depend on the others: a batch of B costs B times the calls.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    here = denoise(x, sigma)
    target = sigma_next if sigma_next else min(least_sigma, sigma)
    if target == sigma:
        return here.x0 if sigma_next == 0 else x, here, ()
    ends = []
    for i in range(len(x)):

        def ask(row: Tensor, at: float, i: int = i) -> Tensor:
            return denoise(row.expand_as(x), at).eps[i : i + 1]

        rows = x[i : i + 1], here.eps[i : i + 1]
        ends.append(integrate(ask, *rows, sigma, target, rtol, atol))
    x_next = torch.cat(ends)
    return denoise(x_next, target).x0 if sigma_next == 0 else x_next, here, ()


ENTRIES = (
    Entry("dpm_adaptive", dpm_adaptive, order=3, nfe=3, paper="arXiv 2206.00927",
          labels=("DPM adaptive",), adaptive=True),
)  # fmt: skip
