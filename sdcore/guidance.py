"""Guidance: how the branches become one prediction. Decided by sigma, never by a counter."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sdcore.errors import InputError


class Guidance(Protocol):
    """What the denoiser needs to know. Write your own: two pure methods."""

    def branches(self, sigma: float) -> tuple[str, ...]:
        """The names of the conditions to run at this sigma, in batch order."""
        ...

    def combine(self, raw: Mapping[str, Tensor], sigma: float) -> Tensor:
        """One model output [B,C,H,W] from the raw ones, by name."""
        ...


@dataclass(frozen=True)
class CFG:
    """Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, eq. 6).

    uncond + scale * (cond - uncond), in the convention where scale 1 is off: one branch only.
    Scale 0 is the negative prompt only, also one branch. Any finite scale is allowed. Outside
    sigma_low <= sigma <= sigma_high guidance is off (Kynkaanniemi et al. 2024, arXiv 2404.07724).
    Raises InputError for a scale that is not finite.
    """

    scale: float = 7.5
    sigma_low: float = 0.0
    sigma_high: float = math.inf

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise InputError(f"cfg must be a finite number, not {self.scale}")

    def branches(self, sigma: float) -> tuple[str, ...]:
        if self.scale == 1 or not self.sigma_low <= sigma <= self.sigma_high:
            return ("cond",)
        return ("uncond",) if self.scale == 0 else ("uncond", "cond")

    def combine(self, raw: Mapping[str, Tensor], sigma: float) -> Tensor:
        if len(raw) == 1:
            return next(iter(raw.values()))
        return torch.lerp(raw["uncond"], raw["cond"], self.scale)
