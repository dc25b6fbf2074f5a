"""How likely a picture is to the model: the change of density along the probability flow.

With x = x0 + sigma * eps the flow is dx/dsigma = eps(x, sigma), and along it (Song et al. 2021,
arXiv 2011.13456, eq. 39; Chen et al. 2018, arXiv 1806.07366, eq. 8)

    log p(x_low) = log p(x_high) + integral of div eps(x, sigma) d sigma from low to high.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.sampling import Denoise, Solver, sample

Divergence = Callable[[Denoise, Tensor, float], Tensor]  # (denoise, x, sigma) -> [B]


def exact_divergence(denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    """sum_i d eps_i / d x_i of each picture [B]; one backward pass a value: small worlds only."""
    with torch.enable_grad():
        at = x.detach().requires_grad_(True)
        eps = denoise(at, sigma).eps.flatten(1)
        columns = [
            torch.autograd.grad(eps[:, i].sum(), at, retain_graph=True)[0].flatten(1)[:, i]
            for i in range(eps.shape[1])
        ]
    return torch.stack(columns).sum(0).detach()


@dataclass(frozen=True)
class Hutchinson:
    """The same in expectation: the mean of v . (d eps / d x) v over random signs v.

    Hutchinson 1989; Grathwohl et al. 2019 (arXiv 1810.01367, eq. 7): the same v at every sigma, so
    that one draw belongs to one integral. probes: how many v; their error falls as its root.
    """

    probes: int = 1
    seed: int = 0

    def __call__(self, denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        total = torch.zeros(x.shape[0], dtype=x.dtype, device=x.device)
        with torch.enable_grad():
            at = x.detach().requires_grad_(True)
            eps = denoise(at, sigma).eps
            for _ in range(self.probes):
                v = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
                (product,) = torch.autograd.grad(eps, at, v, retain_graph=True)
                total = total + (product * v).flatten(1).sum(1)
        return total.detach() / self.probes


@dataclass(frozen=True)
class Likelihood:
    """log_density: log p of each picture [B], in nats; bits: bits a value, -log2 p / values."""

    log_density: Tensor
    bits: Tensor
    noise: Tensor  # [B,C,H,W] where the flow ends, at the largest sigma


def log_likelihood(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    solver: Solver,
    divergence: Divergence = exact_divergence,
    mean: float = 0.0,
    variance: float = 1.0,
) -> Likelihood:
    """log p of x [B,C,H,W] at sigmas[0], by the flow up to the last sigma.

    Args:
        denoise: differentiable in x.
        sigmas: rising, the first above 0: p is the density of the data with that much noise.
        solver: what carries x upwards: heun is of second order, as the integral here is.
        divergence: `exact_divergence`, or a `Hutchinson`.
        mean, variance: of the data's values; at the top x is taken as N(mean, variance + sigma^2).

    The integral is the trapezoid rule in log sigma, where sigma * div is nearly constant on both
    ends. Raises InputError for a schedule that does not rise from above 0.
    """
    if sigmas[0] <= 0 or any(b <= a for a, b in pairwise(sigmas)):
        raise InputError("the sigmas of a likelihood rise from above 0: rising(sigmas)")
    *_, high = sigmas
    slopes = [sigmas[0] * divergence(denoise, x, sigmas[0])]
    end = x
    for step in sample(denoise, x, sigmas, solver):
        end = step.x_next
        slopes.append(sigmas[len(slopes)] * divergence(denoise, end, sigmas[len(slopes)]))
    logs = [math.log(sigma) for sigma in sigmas]
    change = sum(
        (b - a) * (f + g) / 2
        for (a, b), (f, g) in zip(pairwise(logs), pairwise(slopes), strict=True)
    )
    spread = variance + high * high
    values = x[0].numel()
    square = (end - mean).flatten(1).square().sum(1)
    top = -0.5 * (square / spread + values * math.log(2 * math.pi * spread))
    log_density = top + change
    return Likelihood(log_density, -log_density / (values * math.log(2)), end)
