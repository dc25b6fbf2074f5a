"""The training table: how much noise there is at each timestep, and the way between sigma and t."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.process import VariancePreserving


def scaled_linear(start: float, end: float, count: int, dtype: torch.dtype) -> Tensor:
    """Linear in sqrt(beta): latent diffusion's (Rombach et al. 2022, arXiv 2112.10752)."""
    return torch.linspace(start**0.5, end**0.5, count, dtype=dtype) ** 2


def linear(start: float, end: float, count: int, dtype: torch.dtype) -> Tensor:
    """Ho et al. 2020 (arXiv 2006.11239, section 4)."""
    return torch.linspace(start, end, count, dtype=dtype)


def squaredcos(start: float, end: float, count: int, dtype: torch.dtype) -> Tensor:
    """Nichol & Dhariwal 2021 (arXiv 2102.09672, eq. 17); start and end are not used."""
    bar = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
    return torch.tensor([min(1 - bar[i + 1] / bar[i], 0.999) for i in range(count)], dtype=dtype)


BETAS = {"scaled_linear": scaled_linear, "linear": linear, "squaredcos_cap_v2": squaredcos}


def make_betas(
    kind: str, start: float, end: float, count: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """betas [count]. InputError for another name.

    diffusers computes them in float32, the CompVis code and the tools around it in float64: SD's
    sigmas then differ by up to 1.3e-5 of themselves.
    """
    if kind not in BETAS:
        raise InputError(f"unknown beta schedule {kind!r}; known: {', '.join(BETAS)}")
    if count < 1 or not (0 < start < 1 and 0 < end < 1):
        raise InputError(f"no noise schedule has {count} betas from {start} to {end}")
    return BETAS[kind](start, end, count, dtype)


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """betas rescaled so that the last timestep is pure noise (Lin et al. 2024, algorithm 1)."""
    root = (1 - betas).cumprod(0).sqrt()
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    bar = root**2
    return 1 - torch.cat([bar[:1], bar[1:] / bar[:-1]])


@dataclass(frozen=True)
class NoiseSchedule:
    """alphas_cumprod by timestep, falling; from it sigma = sqrt((1 - acp) / acp), rising.

    Both tables are computed in float32, as diffusers computes them, or else in the betas' dtype and
    `dtype`; all else is float64.
    """

    alphas_cumprod: tuple[float, ...]
    dtype: torch.dtype = torch.float32  # of sigma's computation

    @staticmethod
    def from_betas(betas: Tensor, floor: float = 0.0) -> "NoiseSchedule":
        """betas [T]. floor: the least last alphas_cumprod, where a table ends in 0."""
        bar = (1 - betas).cumprod(0).tolist()
        bar[-1] = max(bar[-1], floor)
        return NoiseSchedule(tuple(bar))

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """sigma of every training timestep, rising; infinite where no signal is left."""
        bar = torch.tensor(self.alphas_cumprod, dtype=self.dtype)
        return tuple(((1 - bar) / bar).sqrt().tolist())

    @cached_property
    def log_sigmas(self) -> tuple[float, ...]:
        """Their logarithms."""
        return tuple(map(math.log, self.sigmas))

    @staticmethod
    def spread(sigma: float) -> float:
        """sqrt(1 + sigma^2), as of a `VariancePreserving`."""
        return VariancePreserving.spread(sigma)

    def sigma(self, t: float) -> float:
        """sigma at a timestep 0 .. T - 1; linear in sigma between whole ones, as in diffusers.

        Raises InputError outside the table.
        """
        if not 0 <= t <= len(self) - 1:
            raise InputError(
                f"timestep {t:g} is not in 0 to {len(self) - 1}; take fewer steps, or others"
            )
        low = int(t)
        if low == t:  # the table's own value, also where the next one is infinite
            return self.sigmas[low]
        return self.sigmas[low] + (t - low) * (self.sigmas[low + 1] - self.sigmas[low])

    def timestep(self, sigma: float) -> float:
        """The timestep of a sigma, linear in log sigma as in k-diffusion; clipped at the ends."""
        logs = self.log_sigmas
        if sigma <= self.sigmas[0]:
            return 0.0
        if sigma >= self.sigmas[-1]:
            return len(logs) - 1.0
        low = bisect_right(self.sigmas, sigma) - 1
        return low + (math.log(sigma) - logs[low]) / (logs[low + 1] - logs[low])


STABLE_DIFFUSION = NoiseSchedule.from_betas(make_betas("scaled_linear", 0.00085, 0.012, 1000))
SD_PROCESS = VariancePreserving(STABLE_DIFFUSION)
