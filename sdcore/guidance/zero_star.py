"""CFG-Zero*: the unguided branch at the size that fits the guided one best."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sdcore.guidance.base import with_form
from sdcore.guidance.table_entry import Entry
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class CFGZeroStar:
    """CFG-Zero* (Fan et al. 2025, arXiv 2503.18886, eq. 12 and section 4.2), of eps.

    s uncond + scale * (cond - s uncond), where s = <cond, uncond> / |uncond|^2 of each picture
    brings uncond nearest to cond. Above sigma `zero_above` the answer is 0, and x stays where it
    is; inf is never. scale 1 is off.
    """

    scale: float = 7.5
    zero_above: float = math.inf

    def branches(self, sigma: float) -> tuple[str, ...]:
        return ("cond",) if self.scale == 1 or sigma > self.zero_above else ("uncond", "cond")

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        if sigma > self.zero_above:
            return with_form("eps", torch.zeros_like(x), x, sigma)
        if self.scale == 1:
            return predictions["cond"]
        cond, uncond = predictions["cond"].eps, predictions["uncond"].eps
        over = tuple(range(1, x.ndim))
        size = (uncond * uncond).sum(over, keepdim=True).clamp(min=1e-8)
        fitted = uncond * ((cond * uncond).sum(over, keepdim=True) / size)
        return with_form("eps", torch.lerp(fitted, cond, self.scale), x, sigma)


ENTRIES = (
    Entry(
        "zero_star", CFGZeroStar, "arXiv 2503.18886, eq. 12", "CFG, uncond at the size that fits"
    ),
)
