"""Classifier-free guidance: away from what the network says without the prompt."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sdcore.errors import InputError
from sdcore.guidance.base import lerp
from sdcore.guidance.table_entry import Entry
from sdcore.sampling import Prediction

MAX_SCALE = 2.0**60  # float32 holds its product with a network's numbers


@dataclass(frozen=True)
class CFG:
    """Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, eq. 6).

    uncond + scale * (cond - uncond), in the convention where scale 1 is off: one branch only.
    Scale 0 is the negative prompt only, also one branch. Any scale up to `MAX_SCALE` is allowed.
    Outside sigma_low <= sigma <= sigma_high it is off, as inside an `Interval`. Raises InputError
    for another scale.
    """

    scale: float = 7.5
    sigma_low: float = 0.0
    sigma_high: float = math.inf

    def __post_init__(self) -> None:
        if not abs(self.scale) <= MAX_SCALE:
            raise InputError(f"cfg must be a finite number, not {self.scale}")

    def branches(self, sigma: float) -> tuple[str, ...]:
        if self.scale == 1 or not self.sigma_low <= sigma <= self.sigma_high:
            return ("cond",)
        return ("uncond",) if self.scale == 0 else ("uncond", "cond")

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        names = self.branches(sigma)
        if len(names) == 1:
            return predictions[names[0]]
        return lerp(predictions, "uncond", "cond", self.scale)


ENTRIES = (
    Entry("cfg", CFG, "arXiv 2207.12598, eq. 6", "away from what is said without the prompt"),
)
