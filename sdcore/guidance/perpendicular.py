"""Perp-Neg: a negative prompt that leaves alone what the prompt asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sdcore.guidance.base import Source, lerp, parallel, with_form
from sdcore.guidance.table_entry import Entry
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class PerpNeg:
    """Perpendicular negative guidance (Armandpour et al. 2023, arXiv 2304.04968, eq. 7), of eps.

    empty + scale * (c - strength * n), with c = cond - empty and n the part of uncond - empty that
    is perpendicular to c, of each picture; "empty" is told no words, "uncond" the negative ones.
    strength 0 is CFG away from no words.
    """

    scale: float = 7.5
    strength: float = 1.0
    sources: ClassVar[Mapping[str, Source]] = {"empty": Source(like="uncond", text="")}

    def branches(self, sigma: float) -> tuple[str, ...]:
        return ("empty", "cond") if self.strength == 0 else ("empty", "cond", "uncond")

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        guided = lerp(predictions, "empty", "cond", self.scale)
        if self.strength == 0:
            return guided
        empty, cond, uncond = (predictions[n].eps for n in ("empty", "cond", "uncond"))
        away = uncond - empty
        away = away - parallel(away, cond - empty)
        return with_form("eps", guided.eps - self.scale * self.strength * away, x, sigma)


ENTRIES = (
    Entry("perp_neg", PerpNeg, "arXiv 2304.04968, eq. 7", "a negative that spares the prompt"),
)
