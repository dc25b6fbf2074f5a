"""Guidances made of guidances: within a window of sigma, and several at once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sdcore.errors import InputError
from sdcore.guidance.base import Guidance
from sdcore.guidance.cfg import CFG
from sdcore.guidance.table_entry import Entry
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class Interval:
    """A guidance in a window of sigma (Kynkaanniemi et al. 2024, arXiv 2404.07724, eq. 6).

    Outside low <= sigma <= high it is off: "cond" alone is run. The default is the whole axis.
    Raises InputError for a window that is none.
    """

    inner: Guidance = field(default_factory=CFG)
    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise InputError(f"a window of sigma has 0 <= low <= high, not {self.low}, {self.high}")

    def branches(self, sigma: float) -> tuple[str, ...]:
        return self.inner.branches(sigma) if self.low <= sigma <= self.high else ("cond",)

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        if self.low <= sigma <= self.high:
            return self.inner.combine(predictions, x, sigma)
        return predictions["cond"]


@dataclass(frozen=True)
class Sum:
    """Several guidances at once: cond, and what each of them adds to it.

    Branches of the same name are run once.
    """

    parts: tuple[Guidance, ...]

    def branches(self, sigma: float) -> tuple[str, ...]:
        names = (name for part in self.parts for name in part.branches(sigma))
        found = tuple(dict.fromkeys(names))
        return found if len(self.parts) == 1 or "cond" in found else (*found, "cond")

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        first, *others = (part.combine(predictions, x, sigma) for part in self.parts)
        x0, eps = first.x0, first.eps
        if others:
            cond = predictions["cond"]
            for other in others:
                x0, eps = x0 + (other.x0 - cond.x0), eps + (other.eps - cond.eps)
        return Prediction(x0, eps)


ENTRIES = (
    Entry("interval", Interval, "arXiv 2404.07724, eq. 6", "what is left of it, in a window only"),
)
