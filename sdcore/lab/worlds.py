"""Worlds whose best denoiser is known: what a perfectly trained network would say, without weights.

In each world every latent value is drawn by itself from a distribution p on the line, so that any
latent shape will do. The network of Karras et al. 2022 (arXiv 2206.00364, eq. 3) is then exact: at
noise level sigma a value has the density p * N(0, sigma^2), and eps = -sigma d/dx log of it. All
is computed in x's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from sdcore.denoiser import Denoiser
from sdcore.errors import InputError
from sdcore.guidance import CFG, Guidance
from sdcore.process import Process, Sigmas, VariancePreserving
from sdcore.sampling import Denoise, Prediction


class World(Protocol):
    """A Denoise whose probability flow, dx/dsigma = eps, is known from one sigma to another."""

    def __call__(self, x: Tensor, sigma: float) -> Prediction: ...

    def flow(self, x: Tensor, sigma: float, sigma_next: float) -> Tensor: ...


@dataclass(frozen=True)
class Gaussian:
    """Every value is N(mean, std^2); std 0 is a point, the world of one picture.

    mean: a number, or one picture [C,H,W] in x's dtype. std >= 0.
    """

    mean: float | Tensor = 0.0
    std: float = 1.0

    def __call__(self, x: Tensor, sigma: float) -> Prediction:
        """x0 = E[x0 | x] and eps of x [B,C,H,W] at sigma: linear in x."""
        var = self.std**2 + sigma**2
        offset = x - self.mean
        x0 = self.mean + offset * (self.std**2 / var if var else 1.0)
        return Prediction(x0, offset * (sigma / var if var else 0.0))

    def flow(self, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """Where the flow carries x from sigma > 0 to sigma_next, either way."""
        ratio = math.hypot(self.std, sigma_next) / math.hypot(self.std, sigma)
        return self.mean + (x - self.mean) * ratio


def point(at: float | Tensor = 0.0) -> Gaussian:
    """The world of one picture: eps is constant along the flow, so every solver is exact in it."""
    return Gaussian(at, 0.0)


@dataclass(frozen=True)
class Mixture:
    """Every value is from a sum of K Gaussians, weights[k] N(means[k], stds[k]^2).

    Not linear in x, so that nothing cancels by luck. Raises InputError for lists that do not fit,
    weights that do not add up to 1, or a std of 0.
    """

    means: tuple[float, ...] = (-1.2, 0.1, 0.9)
    stds: tuple[float, ...] = (0.25, 0.4, 0.3)
    weights: tuple[float, ...] = (0.3, 0.5, 0.2)

    def __post_init__(self) -> None:
        if not len(self.means) == len(self.stds) == len(self.weights) > 0:
            raise InputError("a mixture has as many means as stds and weights, at least one")
        if min(self.stds) <= 0 or min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-9:
            raise InputError("a mixture has stds and weights above 0, and weights that add up to 1")

    def __call__(self, x: Tensor, sigma: float) -> Prediction:
        """x0 = E[x0 | x] and eps = -sigma * d log p(x) / dx, of x [B,C,H,W] at sigma."""
        offset, mean, var, share = self._modes(x, sigma)
        share = share.softmax(-1)
        slope = share * offset / var
        x0 = (share * mean + slope * (var - sigma**2)).sum(-1)
        return Prediction(x0, slope.sum(-1) * sigma)

    def log_density(self, x: Tensor, sigma: float) -> Tensor:
        """log of each value's density at this noise level, in x's shape."""
        return self._modes(x, sigma)[-1].logsumexp(-1)

    def given(self, mode: int) -> Gaussian:
        """The world under the condition that each value is of this mode."""
        return Gaussian(self.means[mode], self.stds[mode])

    def flow(self, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """Where the flow carries x from sigma to sigma_next, either way, to rounding.

        On a line the flow carries density along without overtaking, so every value keeps its
        quantile: F(x_next; sigma_next) = F(x; sigma) with F the mixture's distribution function.
        Solved by halving, on the side of the median where F is small and so precise.
        """
        upper = self._below(x, sigma) > 0.5
        sign = torch.where(upper, -1.0, 1.0).to(x.dtype)
        wanted = self._below(x, sigma, sign)
        means, (std, std_next) = x.new_tensor(self.means), map(self._stds, (sigma, sigma_next))
        z = (x[..., None] - means) / x.new_tensor(std)
        # Each mode's own quantile of F lies between the least and the largest z.
        reach = x.new_tensor(std_next)
        low = (means + reach * z.amin(-1, keepdim=True)).amin(-1)
        high = (means + reach * z.amax(-1, keepdim=True)).amax(-1)
        for _ in range(60):
            middle = (low + high) / 2
            left = (self._below(middle, sigma_next, sign) < wanted) ^ upper
            low, high = torch.where(left, middle, low), torch.where(left, high, middle)
        return (low + high) / 2

    def _stds(self, sigma: float) -> list[float]:
        return [math.hypot(std, sigma) for std in self.stds]

    def _modes(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(x - mean, mean, variance, log of weight times density), modes last."""
        stds = self._stds(sigma)
        logs = [
            math.log(weight / (std * math.sqrt(2 * math.pi)))
            for weight, std in zip(self.weights, stds, strict=True)
        ]
        mean, var, log = x.new_tensor([self.means, [std**2 for std in stds], logs])
        offset = x[..., None] - mean
        return offset, mean, var, log - offset**2 / (2 * var)

    def _below(self, x: Tensor, sigma: float, sign: Tensor | float = 1.0) -> Tensor:
        """The share of values below x; above x where sign is -1."""
        z = (x[..., None] - x.new_tensor(self.means)) / x.new_tensor(self._stds(sigma))
        z = z * (sign[..., None] if isinstance(sign, Tensor) else sign)
        return (torch.special.ndtr(z) * x.new_tensor(self.weights)).sum(-1)


IN_SIGMA = VariancePreserving(Sigmas())


@dataclass(frozen=True)
class Network:
    """A world that speaks as a UNet does: (x_in, t, world=labels) -> eps, v or x0.

    worlds: what the label of a row chooses, e.g. (unconditional, conditional).
    process: how it sees x, what it says, and what t is; by default t is sigma itself.
    """

    worlds: Sequence[Denoise]
    process: Process = IN_SIGMA

    def __call__(self, x_in: Tensor, t: float, world: Tensor | None = None) -> Tensor:
        """x_in [B,C,H,W] = x * c_in; world [B]: the labels, None for the first."""
        sigma = self.process.clock.sigma(t)
        out = self._say(self.worlds[0], x_in, sigma)
        if world is not None:
            label = world.reshape(-1, *[1] * (x_in.ndim - 1))
            for number, other in enumerate(self.worlds[1:], start=1):
                out = torch.where(label == number, self._say(other, x_in, sigma), out)
        return out

    def _say(self, world: Denoise, x_in: Tensor, sigma: float) -> Tensor:
        prediction = world(x_in * self.process.spread(sigma), sigma)
        return self.process.raw(prediction.x0, prediction.eps, sigma)


def denoiser(
    cond: Denoise,
    uncond: Denoise | None = None,
    guidance: Guidance | None = None,
    prediction_type: str = "epsilon",
    batch: int = 1,
    process: Process | None = None,
) -> Denoiser:
    """The engine's own Denoiser around a world, with guidance between two of them.

    process: how the network sees x and what it says, of that prediction type where there is none.
    guidance: None is off. Its effect is known: it is the flow of uncond(x)^(1 - scale) *
    cond(x)^scale at every sigma; between two Gaussians of one std that is the Gaussian at
    uncond.mean + scale * (cond.mean - uncond.mean).
    """
    worlds = (cond if uncond is None else uncond, cond)
    told: Mapping[str, Mapping[str, Tensor]] = {
        name: {"world": torch.full((batch,), label)}
        for label, name in enumerate(("uncond", "cond"))
    }
    guidance = CFG(1) if guidance is None else guidance
    if process is None:
        process = replace(IN_SIGMA, prediction_type=prediction_type)
    return Denoiser(Network(worlds, process), process, told, guidance)
