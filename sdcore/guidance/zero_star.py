"""CFG-Zero*: the unguided branch at the size that fits the guided one best."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from sdcore.guidance.base import of_one_network, parallel, with_form
from sdcore.guidance.table_entry import Entry
from sdcore.keywords import Range
from sdcore.process import RectifiedFlow
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class CFGZeroStar:
    """CFG-Zero* (Fan et al. 2025, arXiv 2503.18886, eq. 12 and section 4.2).

    s uncond + scale * (cond - s uncond), where s = <cond, uncond> / |uncond|^2 of each picture
    brings uncond nearest to cond: of the network's own output, eps, v or x0; of eps where two
    networks answer. Above sigma `zero_above` x stays where it is: eps is 0, or v of a flow; inf is
    never. scale 1 is off.
    """

    scale: float = 7.5
    zero_above: Annotated[float, Range(0)] = math.inf

    def branches(self, sigma: float) -> tuple[str, ...]:
        return ("cond",) if self.scale == 1 or sigma > self.zero_above else ("uncond", "cond")

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        if sigma > self.zero_above:
            said = of_one_network(predictions, "cond")
            if said is not None and isinstance(said.process, RectifiedFlow):
                return said.made_of(torch.zeros_like(x))
            return with_form("eps", torch.zeros_like(x), x, sigma)
        if self.scale == 1:
            return predictions["cond"]
        if (said := of_one_network(predictions, "cond", "uncond")) is not None:
            return said.made_of(self._guided(said.raw["cond"], said.raw["uncond"]))
        cond, uncond = predictions["cond"].eps, predictions["uncond"].eps
        return with_form("eps", self._guided(cond, uncond), x, sigma)

    def _guided(self, cond: Tensor, uncond: Tensor) -> Tensor:
        return torch.lerp(parallel(cond, uncond), cond, self.scale)


ENTRIES = (
    Entry(
        "zero_star", CFGZeroStar, "arXiv 2503.18886, eq. 12", "CFG, uncond at the size that fits"
    ),
)
