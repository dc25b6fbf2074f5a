"""Dynamic thresholding: x0 is kept within bounds that follow it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from sdcore.guidance.base import Guidance, check_paired, column, with_x0
from sdcore.guidance.cfg import CFG
from sdcore.guidance.table_entry import Entry
from sdcore.keywords import Range
from sdcore.sampling import Prediction


def bounded(x0: Tensor, ratio: float, least: float, most: float = math.inf) -> Tensor:
    """x0 [B,...] clipped to -s .. s and scaled to -least .. least (Saharia et al. 2022, sec. 2.3).

    s is each picture's `ratio` quantile of |x0|, kept in least to most.
    """
    size = torch.quantile(x0.abs().flatten(1), ratio, dim=1).clamp(least, max(least, most))
    size = column(size, x0)
    return x0.clamp(-size, size) / size * least


@dataclass(frozen=True)
class Threshold:
    """A guidance with dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487, section 2.3).

    Where the `ratio` quantile of |x0| is above `least`, x0 is clipped there and scaled down to
    least. The paper's 1 is for pixels in -1 .. 1; SD's latents reach about 4. inf is off.
    Raises InputError for CFG++, which this would undo.
    """

    inner: Guidance = field(default_factory=CFG)
    ratio: Annotated[float, Range(0, 1)] = 0.995
    least: Annotated[float, Range(0, above=True)] = 4.0

    def __post_init__(self) -> None:
        check_paired(self.inner, "threshold")

    def branches(self, sigma: float) -> tuple[str, ...]:
        return self.inner.branches(sigma)

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        guided = self.inner.combine(predictions, x, sigma)
        if math.isinf(self.least):
            return guided
        return with_x0(bounded(guided.x0, self.ratio, self.least), x, sigma)


ENTRIES = (
    Entry("threshold", Threshold, "arXiv 2205.11487, sec. 2.3", "what is left of it, x0 in bounds"),
)
