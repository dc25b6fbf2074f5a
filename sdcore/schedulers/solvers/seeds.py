"""SEEDS: exponential Runge-Kutta steps in lambda = -log sigma, with the noise of the reverse SDE.

Gonzalez et al. 2023 (arXiv 2305.14267), in x0. Over a share c of the step, with h = log(sigma /
sigma_next) and z = c (1 + eta) h, x goes to e^-z x + sum_j a_j x0_j, where the weights come from
phi_1 and phi_2 of -z (Hochbruck & Ostermann 2010, eq. 2.10). With eta 0 they are deterministic:
`seeds_2` is DPM-Solver++(2S) then, and `exp_heun_2_x0` exponential Heun.
"""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from sdcore.keywords import Range
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.integrals import combine, phi
from sdcore.schedulers.table_entry import Entry

Share = Annotated[float, Range(0.01, 1)]


class _Way:
    """The way of one step: what is kept of x, what each x0 weighs, and the noise so far."""

    def __init__(self, x: Tensor, interval: Interval, eta: float, draw: Draw) -> None:
        self.x, self.sigma, self.draw = x, interval.sigma, draw
        self.h = math.log(interval.sigma / interval.sigma_next)
        self.eta = eta if self.h > 0 else 0.0  # none on the way up (inversion)
        self.share, self.noise = 0.0, torch.zeros(())  # in units of the sigma where it is

    def at(self, share: float) -> float:
        """sigma at a share of the step."""
        return self.sigma * math.exp(-share * self.h)

    def weights(self, share: float) -> tuple[float, float]:
        """(z phi_1(-z), z phi_2(-z))."""
        z = share * (1 + self.eta) * self.h
        one, two = phi(2, -z)
        return z * one, z * two

    def to(self, share: float, sigma: float, weights: list[float], data: list[Tensor]) -> Tensor:
        """x at a share of the step, farther on than before, with all noise up to there."""
        kept = math.exp(-share * (1 + self.eta) * self.h)
        x = combine(self.x * kept, weights, data)
        if self.eta == 0:
            return x
        piece = (share - self.share) * self.h * self.eta
        drawn = self.draw(self.at(self.share) if self.share else self.sigma, sigma)
        fresh = drawn * math.sqrt(-math.expm1(-2 * piece))
        self.share, self.noise = share, self.noise * math.exp(-piece) + fresh
        return torch.add(x, self.noise, alpha=sigma)


def seeds_2(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    eta: float = 0.0,
    r: Share = 0.5,
    solver_type: Literal["phi_1", "phi_2"] = "phi_1",
) -> tuple[Tensor, Prediction, Memory]:
    """SEEDS-2, with its one stage at a share r of the step; into sigma 0 the step is x0.

    solver_type: phi_1 weighs the two x0 as a constant in the middle would be, phi_2 integrates the
    line through them exactly.
    """
    here = denoise(x, interval.sigma)
    if interval.sigma_next == 0:
        return here.x0, here, ()
    if interval.sigma_next == interval.sigma:
        return x, here, ()
    way = _Way(x, interval, eta, draw)
    middle = way.at(r) if r < 1 else interval.sigma_next
    there = denoise(way.to(r, middle, [way.weights(r)[0]], [here.x0]), middle)
    one, two = way.weights(1)
    second = one / (2 * r) if solver_type == "phi_1" else two / r
    x_next = _end(way, interval, [one - second, second], [here.x0, there.x0])
    return x_next, here, ()


def seeds_3(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    eta: float = 0.0,
    r_1: Share = 1 / 3,
    r_2: Share = 2 / 3,
) -> tuple[Tensor, Prediction, Memory]:
    """SEEDS-3, with two stages; eta 0: DPM-Solver-3 (Lu et al. 2022, arXiv 2206.00927) for x0."""
    here = denoise(x, interval.sigma)
    if interval.sigma_next == 0:
        return here.x0, here, ()
    if interval.sigma_next == interval.sigma:
        return x, here, ()
    way = _Way(x, interval, eta, draw)
    first, last = way.at(r_1), way.at(r_2)
    second = denoise(way.to(r_1, first, [way.weights(r_1)[0]], [here.x0]), first)
    one, two = way.weights(r_2)
    slope = two * r_2 / r_1
    third = denoise(way.to(r_2, last, [one - slope, slope], [here.x0, second.x0]), last)
    one, two = way.weights(1)
    return _end(way, interval, [one - two / r_2, two / r_2], [here.x0, third.x0]), here, ()


def _end(way: _Way, interval: Interval, weights: list[float], data: list[Tensor]) -> Tensor:
    if way.eta == 0 or way.share < 1:
        return way.to(1.0, interval.sigma_next, weights, data)
    # the stage was at the step's end: its noise is the step's
    kept = combine(way.x * math.exp(-(1 + way.eta) * way.h), weights, data)
    return torch.add(kept, way.noise, alpha=interval.sigma_next)


_HEUN = {"r": 1.0, "solver_type": "phi_2"}

ENTRIES = (
    Entry("seeds_2", seeds_2, order=2, nfe=2, paper="arXiv 2305.14267", eta=1.0, stochastic=True,
          tableau="midpoint in lambda"),
    Entry("seeds_3", seeds_3, order=3, nfe=3, paper="arXiv 2305.14267", eta=1.0, stochastic=True),
    Entry("exp_heun_2_x0", seeds_2, order=2, nfe=2, paper="arXiv 2305.14267", options=_HEUN,
          eta=0.0),
    Entry("exp_heun_2_x0_sde", seeds_2, order=2, nfe=2, paper="arXiv 2305.14267", options=_HEUN,
          eta=1.0, stochastic=True),
)  # fmt: skip
