"""Adaptive projected guidance: what makes high scales too bright is left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from sdcore.guidance.base import column, of_form, parallel, with_form
from sdcore.guidance.cfg import CFG
from sdcore.guidance.table_entry import Entry
from sdcore.keywords import Range
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class APG:
    """Adaptive projected guidance (Sadat et al. 2024, arXiv 2410.02416, algorithm 1).

    cond + (scale - 1) * (orthogonal + eta * parallel), the two parts of cond - uncond beside cond,
    of each picture. norm: the most that cond - uncond may measure; 0 is no bound. eta 1 without a
    bound is CFG. form: of "x0", as in the paper, or of "eps". The paper's momentum, a memory of
    earlier steps, has no place where sigma alone decides.
    """

    scale: float = 7.5
    eta: float = 0.0
    norm: Annotated[float, Range(0)] = 0.0
    form: Literal["x0", "eps"] = "x0"

    def branches(self, sigma: float) -> tuple[str, ...]:
        return ("cond",) if self.scale == 1 else ("uncond", "cond")

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        if self.scale == 1 or (self.eta == 1 and self.norm == 0):
            return CFG(self.scale).combine(predictions, x, sigma)
        cond, uncond = (of_form(predictions[name], self.form) for name in ("cond", "uncond"))
        change = cond - uncond
        if self.norm > 0:
            size = column(change.flatten(1).norm(dim=1), x)
            change = change * (self.norm / size).clamp(max=1)
        along = parallel(change, cond)
        update = change - along + self.eta * along
        return with_form(self.form, cond + (self.scale - 1) * update, x, sigma)


ENTRIES = (
    Entry("apg", APG, "arXiv 2410.02416, alg. 1", "CFG without what only makes it brighter"),
)
