"""Classifier-free guidance whose scale changes on the way down."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from sdcore.errors import InputError
from sdcore.guidance.cfg import CFG
from sdcore.guidance.table_entry import Entry
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class Varying:
    """CFG with a scale for each noise level (Wang et al. 2024, arXiv 2404.13040, section 3).

    scales: at the sigmas of `sigmas`; linear in log sigma between them, constant beyond. Equal ones
    are plain CFG. Raises InputError for lists that do not fit, or sigmas that do not fall.
    """

    scales: tuple[float, ...] = (7.5, 7.5)
    sigmas: tuple[float, ...] = (14.6, 0.03)

    def __post_init__(self) -> None:
        falls = all(a > b > 0 for a, b in pairwise(self.sigmas))
        if not len(self.scales) == len(self.sigmas) > 0 or not falls:
            raise InputError("varying needs as many scales as sigmas, and sigmas that fall above 0")

    def at(self, sigma: float) -> float:
        """The scale at this noise level."""
        if sigma >= self.sigmas[0]:
            return self.scales[0]
        points = list(zip(self.sigmas, self.scales, strict=True))
        for (high, above), (low, below) in pairwise(points):
            if sigma >= low:
                return above + (below - above) * math.log(high / sigma) / math.log(high / low)
        return self.scales[-1]

    def branches(self, sigma: float) -> tuple[str, ...]:
        return CFG(self.at(sigma)).branches(sigma)

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        return CFG(self.at(sigma)).combine(predictions, x, sigma)


ENTRIES = (
    Entry("varying", Varying, "arXiv 2404.13040, sec. 3", "CFG with a scale for each noise level"),
)
