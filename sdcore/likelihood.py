"""How likely a picture is to the model: the change of density along the probability flow.

With x = x0 + sigma * eps the flow is dx/dsigma = eps(x, sigma), and along it (Song et al. 2021,
arXiv 2011.13456, eq. 39; Chen et al. 2018, arXiv 1806.07366, eq. 8)

    log p(x_low) = log p(x_high) + integral of div eps(x, sigma) d sigma from low to high.

Along the path of flow matching, where the network sees y = x / (1 + sigma) and says v, it is the
same of y in s = sigma / (1 + sigma), with div v. Either integral is one more value of the picture
that the solver carries, so it is as exact as the solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.process import Process, RectifiedFlow, from_eps
from sdcore.sampling import Denoise, Prediction, Solver, sample

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
        """sum_i d eps_i / d x_i of each picture [B], estimated."""
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
    process: Process | None = None,
) -> Likelihood:
    """log p of x [B,C,H,W] at sigmas[0], by the flow up to the last sigma.

    Args:
        denoise: differentiable in x.
        sigmas: rising, the first above 0: p is the density of the data with that much noise.
        solver: what carries x upwards, and the integral with it: deterministic, of any kind.
        divergence: `exact_divergence`, or a `Hutchinson`.
        mean, variance: of the data's values; at the top x is taken as N(mean, variance + sigma^2).
        process: of the network; along the path of flow matching the integral is in s.

    Raises InputError for a schedule that does not rise from above 0.
    """
    if len(sigmas) < 2 or sigmas[0] <= 0 or any(b <= a for a, b in pairwise(sigmas)):
        raise InputError(
            "the sigmas of a likelihood, two or more, rise from above 0: rising(sigmas)"
        )
    values, (*_, high) = x[0].numel(), sigmas
    ask = _with_change(denoise, x.shape, divergence, process)
    start = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1)[:, None, None]
    *_, last = sample(ask, start, sigmas, solver)
    end, change = last.x_next.flatten(1)[:, :-1], last.x_next.flatten(1)[:, -1]
    spread = variance + high * high
    square = (end - mean).square().sum(1)
    top = -0.5 * (square / spread + values * math.log(2 * math.pi * spread))
    if isinstance(process, RectifiedFlow):  # of y, and back to x
        low, high = process.spread(sigmas[0]), process.spread(high)
        change = change / high + values * math.log(high / low)
    log_density = top + change
    return Likelihood(log_density, -log_density / (values * math.log(2)), end.reshape(x.shape))


def _with_change(
    denoise: Denoise, shape: torch.Size, divergence: Divergence, process: Process | None
) -> Denoise:
    """The model of pictures [B,1,1,CHW + 1] whose last value is the change of log p.

    That value is what a network would say of it, the divergence of what it says of the others.
    """
    flow = process if isinstance(process, RectifiedFlow) else None

    def ask(z: Tensor, sigma: float) -> Prediction:
        spread = 1.0 if flow is None else flow.spread(sigma)
        answers: list[Prediction] = []

        def said(y: Tensor, sigma: float) -> Prediction:
            answers.append(denoise(y * spread, sigma))
            here = answers[-1]
            return here if flow is None else replace(here, eps=here.eps - here.x0)

        x, kept = z[..., :-1].reshape(shape), z[..., -1:]
        raw = divergence(said, x / spread, sigma).reshape(kept.shape)
        x0_eps = from_eps if flow is None else flow.x0_eps
        change = x0_eps(raw, kept, sigma)
        (here,) = answers
        row = z[..., :-1].shape
        x0, eps = (
            torch.cat([picture.detach().reshape(row), value], -1)
            for picture, value in zip((here.x0, here.eps), change, strict=True)
        )
        return Prediction(x0, eps)

    return ask
