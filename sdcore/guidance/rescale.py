"""Rescaling: what guidance did to the spread is taken back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from torch import Tensor

from sdcore.guidance.base import Guidance, check_paired, of_form, with_form
from sdcore.guidance.cfg import CFG
from sdcore.guidance.table_entry import Entry
from sdcore.keywords import Range
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class Rescale:
    """A guidance whose result keeps the standard deviation of cond.

    Lin et al. 2024 (arXiv 2305.08891, eq. 15 and 16): guided * std(cond) / std(guided), and `share`
    of that with the rest of what was; 0 is off. Of each picture, over channels and pixels; form: of
    "eps" or of "x0". Raises InputError for CFG++, which this would undo.
    """

    inner: Guidance = field(default_factory=CFG)
    share: Annotated[float, Range(0, 1)] = 0.7
    form: Literal["eps", "x0"] = "eps"

    def __post_init__(self) -> None:
        check_paired(self.inner, "rescale")

    def branches(self, sigma: float) -> tuple[str, ...]:
        names = self.inner.branches(sigma)
        return names if "cond" in names or self.share == 0 else (*names, "cond")

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        guided = self.inner.combine(predictions, x, sigma)
        if self.share == 0:
            return guided
        value, cond = of_form(guided, self.form), of_form(predictions["cond"], self.form)
        over = tuple(range(1, x.ndim))
        ratio = cond.std(over, keepdim=True) / value.std(over, keepdim=True)
        return with_form(self.form, value * (self.share * ratio + (1 - self.share)), x, sigma)


ENTRIES = (
    Entry(
        "rescale",
        Rescale,
        "arXiv 2305.08891, eq. 15",
        "what is left of it, with the spread of cond",
    ),
)
