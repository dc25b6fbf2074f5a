"""ER-SDE: a reverse SDE whose noise is chosen freely, solved in sigma."""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.past import past
from sdcore.schedulers.table_entry import Entry

POINTS = 16  # of the quadrature; over all of SD's sigmas in one step its error is below 1e-9


def noise_scale(sigma: float, eta: float) -> float:
    """phi(sigma), which says how much noise there is (Cui et al. 2023, section 3.2).

    sigma is the probability flow, sigma^2 the reverse SDE of training; the paper's best lies
    between, sigma (e^(sigma^0.3) + 10) (ER SDE 5). eta 0 to 1 goes from the flow to that.
    """
    return sigma * (math.exp(sigma**0.3) + 10) ** eta


def integral(sigma: float, sigma_next: float, eta: float, power: int) -> float:
    """The integral of (s - sigma)^power / phi(s) over s from sigma_next to sigma.

    By Gauss-Legendre in log s, where the integrand is smooth.
    """
    middle = math.log(sigma * sigma_next) / 2
    half = math.log(sigma / sigma_next) / 2
    total = 0.0
    for node, weight in _gauss():
        s = math.exp(middle + half * node)
        total += weight * half * s * (s - sigma) ** power / noise_scale(s, eta)
    return total


@cache
def _gauss() -> tuple[tuple[float, float], ...]:
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    return tuple(zip(nodes.tolist(), weights.tolist(), strict=True))


def er_sde(
    denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw, *, eta: float = 0.0
) -> tuple[Tensor, Prediction, Memory]:
    """ER-SDE-Solver-3 (Cui et al. 2023, arXiv 2309.06169, algorithm 3, VE form).

    x_next = r x + (1 - r) x0 + slope and curvature of x0 in sigma, with r = phi(sigma_next) /
    phi(sigma). As published, the slope is that between the last two x0, not the one here: second
    order. Remembers two x0. Into sigma 0 the step is x0.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    known = past("x0", prediction, interval, memory, 3)
    remember = tuple(known[:2])
    if sigma_next == 0:
        return prediction.x0, prediction, remember
    scale, length = noise_scale(sigma_next, eta), sigma_next - sigma
    ratio = scale / noise_scale(sigma, eta)
    x_next = torch.lerp(prediction.x0, x, ratio)
    if len(known) > 1:
        one = known[1]
        slope = (prediction.x0 - one.value) / (sigma - one.sigma)
        weight = length + scale * integral(sigma, sigma_next, eta, 0)
        x_next = torch.add(x_next, slope, alpha=weight)
        if len(known) > 2:
            two = known[2]
            before = (one.value - two.value) / (one.sigma - two.sigma)
            curvature = 2 * (slope - before) / (sigma - two.sigma)
            weight = length**2 / 2 + scale * integral(sigma, sigma_next, eta, 1)
            x_next = torch.add(x_next, curvature, alpha=weight)
    if eta > 0 and sigma_next < sigma:
        std = math.sqrt(max(sigma_next**2 - (sigma * ratio) ** 2, 0.0))
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=std)
    return x_next, prediction, remember


ENTRIES = (
    Entry("er_sde", er_sde, order=2, nfe=1, paper="arXiv 2309.06169", labels=("ER SDE", "ER-SDE"),
          eta=1.0, stochastic=True),
)  # fmt: skip
