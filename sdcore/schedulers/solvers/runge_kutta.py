"""Runge-Kutta methods from their tableaux, in the variable of one's choice.

A method is data (Butcher 2016, Numerical Methods for ODEs, section 232): with stages
k_i = f(u + c_i h, y + h sum_j a_ij k_j) it takes y to y + h sum_i b_i k_i. A tableau of one's own
is a few lines in a file:

    from functools import partial
    from sdcore.schedulers.solvers.runge_kutta import Tableau, runge_kutta
    solver = partial(runge_kutta, tableau=Tableau(((), (1 / 2,)), (0, 1)))     # the midpoint rule
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.process import to_s
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.integrals import combine
from sdcore.schedulers.table_entry import Entry


@dataclass(frozen=True)
class Tableau:
    """An explicit method. a: a row for each stage, of as many numbers as stages before it; b: one
    number for each stage. Raises InputError for others, or for b that do not add up to 1.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    def __post_init__(self) -> None:
        if [len(row) for row in self.a] != list(range(len(self.b))):
            raise InputError("a tableau has a number in row i of a for each of the i stages before")
        if not self.b or abs(sum(self.b) - 1) > 1e-9:
            raise InputError("the b of a tableau add up to 1")

    @property
    def c(self) -> tuple[float, ...]:
        """Where the stages are: c_i = sum_j a_ij."""
        return tuple(math.fsum(row) for row in self.a)


TABLEAUX = {
    "midpoint": Tableau(((), (1 / 2,)), (0, 1)),
    "ralston": Tableau(((), (2 / 3,)), (1 / 4, 3 / 4)),
    "kutta3": Tableau(((), (1 / 2,), (-1, 2)), (1 / 6, 2 / 3, 1 / 6)),
    "ssprk3": Tableau(((), (1,), (1 / 4, 1 / 4)), (1 / 6, 1 / 6, 2 / 3)),
    "rk4": Tableau(((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
    "rk38": Tableau(
        ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)
    ),
    "dopri5": Tableau(  # Dormand & Prince 1980, RK5(4)7M; its seventh stage is for the embedded one
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    "tsit5": Tableau(  # Tsitouras 2011, table 1
        (
            (),
            (0.161,),
            (-0.008480655492356989, 0.335480655492357),
            (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
            (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
            (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401,
             -0.028269050394068383),
        ),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
         2.324710524099774),
    ),
    "butcher6": Tableau(  # Butcher 1964
        (
            (),
            (1 / 3,),
            (0, 2 / 3),
            (1 / 12, 1 / 3, -1 / 12),
            (-1 / 16, 9 / 8, -3 / 16, -3 / 8),
            (0, 9 / 8, -3 / 8, -3 / 4, 1 / 2),
            (9 / 44, -9 / 11, 63 / 44, 18 / 11, 0, -16 / 11),
        ),
        (11 / 120, 0, 27 / 40, 27 / 40, -4 / 15, -4 / 15, 11 / 120),
    ),
}  # fmt: skip


class Variable(NamedTuple):
    """What a method integrates in: u for sigma, y for x, and the slope dy/du of a prediction."""

    u: Callable[[float], float]
    sigma: Callable[[float], float]
    scale: Callable[[float], float]  # y = x * scale(sigma)
    slope: Callable[[Prediction, float], Tensor]


VARIABLES = {
    # The probability flow dx/dsigma = eps (Karras et al. 2022, arXiv 2206.00364, eq. 1), as it is;
    "sigma": Variable(lambda s: s, lambda u: u, lambda s: 1.0, lambda p, s: p.eps),
    # in log sigma;
    "log_sigma": Variable(math.log, math.exp, lambda s: 1.0, lambda p, s: s * p.eps),
    # as d(x / sigma) / d(1 / sigma) = x0, whose linear part is exact, as DPM-Solver++'s is;
    "data": Variable(lambda s: 1 / s, lambda u: 1 / u, lambda s: 1 / s, lambda p, s: p.x0),
    # along the path of flow matching, x / (1 + sigma) = (1 - s) x0 + s eps, d/ds = eps - x0.
    "s": Variable(
        to_s,
        lambda u: u / (1 - u),
        lambda s: 1 / (1 + s),
        lambda p, s: p.eps - p.x0,
    ),
}  # fmt: skip


def runge_kutta(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    tableau: str | Tableau = "rk4",
    variable: Literal["sigma", "log_sigma", "data", "s"] = "sigma",
) -> tuple[Tensor, Prediction, Memory]:
    """One step of the tableau's method. To or from sigma 0, where not every slope is: Euler.

    tableau: a name of `TABLEAUX`, or one's own. variable: of `VARIABLES`.
    """
    method = _tableau(tableau)
    sigma, sigma_next = interval.sigma, interval.sigma_next
    here = denoise(x, sigma)
    if sigma_next == 0 or sigma == 0:
        return torch.add(here.x0, here.eps, alpha=sigma_next), here, ()
    way = VARIABLES[variable]
    begin, length = way.u(sigma), way.u(sigma_next) - way.u(sigma)
    y, slopes = x * way.scale(sigma), [way.slope(here, sigma)]
    for row, c in zip(method.a[1:], method.c[1:], strict=True):
        level = sigma_next if c == 1 else way.sigma(begin + c * length)
        stage = combine(y, [length * a for a in row], slopes) / way.scale(level)
        slopes.append(way.slope(denoise(stage, level), level))
    y_next = combine(y, [length * b for b in method.b], slopes)
    return y_next / way.scale(sigma_next), here, ()


def _tableau(given: str | Tableau) -> Tableau:
    if isinstance(given, Tableau):
        return given
    if given not in TABLEAUX:
        raise InputError(f"unknown tableau {given!r}: known are {', '.join(TABLEAUX)}")
    return TABLEAUX[given]


def _entry(name: str, order: int, paper: str) -> Entry:
    return Entry(name, runge_kutta, order=order, nfe=len(TABLEAUX[name].b), paper=paper,
                 options={"tableau": name})  # fmt: skip


ENTRIES = (
    _entry("midpoint", 2, "Runge 1895"),
    _entry("ralston", 2, "Ralston 1962"),
    _entry("kutta3", 3, "Kutta 1901"),
    _entry("ssprk3", 3, "Shu & Osher 1988"),
    _entry("rk4", 4, "Kutta 1901"),
    _entry("rk38", 4, "Kutta 1901"),
    _entry("dopri5", 5, "Dormand & Prince 1980"),
    _entry("tsit5", 5, "Tsitouras 2011"),
    _entry("butcher6", 6, "Butcher 1964"),
)
