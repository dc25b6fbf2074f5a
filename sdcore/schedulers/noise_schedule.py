"""The training table: how much noise there is at each timestep, and the way between sigma and t."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sdcore.errors import InputError

BETA_SCHEDULES = ("scaled_linear", "linear", "squaredcos_cap_v2")


def make_betas(kind: str, start: float, end: float, count: int) -> Tensor:
    """betas [count] in float32, as the networks were trained with.

    linear: Ho et al. 2020 (arXiv 2006.11239, section 4); scaled_linear: linear in sqrt(beta),
    latent diffusion's; squaredcos_cap_v2: Nichol & Dhariwal 2021 (arXiv 2102.09672, eq. 17).
    Raises InputError for another name.
    """
    if kind == "linear":
        return torch.linspace(start, end, count, dtype=torch.float32)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    if kind == "squaredcos_cap_v2":
        bar = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
        return torch.tensor([min(1 - bar[i + 1] / bar[i], 0.999) for i in range(count)])
    raise InputError(f"unknown beta schedule {kind!r}; known: {', '.join(BETA_SCHEDULES)}")


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """betas rescaled so that the last timestep is pure noise (Lin et al. 2024, algorithm 1)."""
    root = (1 - betas).cumprod(0).sqrt()
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    bar = root**2
    return 1 - torch.cat([bar[:1], bar[1:] / bar[:-1]])


@dataclass(frozen=True)
class NoiseSchedule:
    """alphas_cumprod by timestep, falling; from it sigma = sqrt((1 - acp) / acp), rising.

    Both tables are computed in float32, as diffusers computes them; all else is float64.
    """

    alphas_cumprod: tuple[float, ...]

    @staticmethod
    def from_betas(betas: Tensor, floor: float = 0.0) -> "NoiseSchedule":
        """betas [T] float32. floor: the least last alphas_cumprod, where a table ends in 0."""
        bar = (1 - betas).cumprod(0).tolist()
        bar[-1] = max(bar[-1], floor)
        return NoiseSchedule(tuple(bar))

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """sigma of every training timestep, rising; infinite where no signal is left."""
        bar = torch.tensor(self.alphas_cumprod, dtype=torch.float32)
        return tuple(((1 - bar) / bar).sqrt().tolist())

    @cached_property
    def log_sigmas(self) -> tuple[float, ...]:
        return tuple(map(math.log, self.sigmas))

    def sigma(self, t: float) -> float:
        """sigma at a timestep 0 .. T - 1; linear in sigma between whole ones, as in diffusers."""
        return _interpolate(self.sigmas, t)

    def timestep(self, sigma: float) -> float:
        """The timestep of a sigma, linear in log sigma as in k-diffusion; clipped at the ends."""
        logs = self.log_sigmas
        if sigma <= self.sigmas[0]:
            return 0.0
        if sigma >= self.sigmas[-1]:
            return len(logs) - 1.0
        low = bisect_right(self.sigmas, sigma) - 1
        return low + (math.log(sigma) - logs[low]) / (logs[low + 1] - logs[low])


def _interpolate(table: Sequence[float], t: float) -> float:
    low = min(int(t), len(table) - 2)
    weight = t - low
    if weight in (0, 1):  # exactly the table's own value, also beside an infinite one
        return table[low + int(weight)]
    return table[low] + weight * (table[low + 1] - table[low])
