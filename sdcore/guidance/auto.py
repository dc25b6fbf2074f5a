"""Autoguidance: away from what a weaker model says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sdcore.guidance.base import Source, lerp
from sdcore.guidance.table_entry import Entry
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class Autoguidance:
    """Autoguidance (Karras et al. 2024, arXiv 2406.02507, eq. 3).

    weak + scale * (cond - weak), where a second, worse model answers "weak" to the same prompt; 1
    is off. The answer comes from `replace(run, answers={"weak": other.denoise})`, where `other` is
    the same run of that model with cfg 1, or from any (x, sigma) -> Prediction.
    """

    scale: float = 2.0
    sources: ClassVar[Mapping[str, Source]] = {"weak": Source(model=True)}

    def branches(self, sigma: float) -> tuple[str, ...]:
        return ("cond",) if self.scale == 1 else ("weak", "cond")

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        if self.scale == 1:
            return predictions["cond"]
        return lerp(predictions, "weak", "cond", self.scale)


ENTRIES = (
    Entry("auto", Autoguidance, "arXiv 2406.02507, eq. 3", "away from a second, worse model"),
)
