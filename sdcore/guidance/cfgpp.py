"""CFG++: a guided picture, and the noise as it is without the prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from sdcore.guidance.base import lerp
from sdcore.guidance.table_entry import Entry
from sdcore.keywords import Range
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class CFGPlusPlus:
    """CFG++ (Chung et al. 2024, arXiv 2406.08070, algorithm 2).

    x0 is guided by `share` (lambda, 0 to 1): uncond + share * (cond - uncond). The noise that is
    added back is uncond's, so that x stays where pictures with that much noise are. For solvers
    that step along eps from x0 (Euler, DDIM, ancestral ones, Heun ...); those that step from x by
    x0 alone (DPM++) are guided by x0. share 0 is uncond alone. Nothing that makes eps follow from
    x0, or x0 from eps, can take it: `Rescale` and `Threshold` refuse it. Under a soft mask x0 and
    eps are as far apart as the share that is repainted.
    """

    share: Annotated[float, Range(0, 1)] = 0.6
    unpaired: ClassVar[bool] = True  # x0 + sigma eps is not x

    def branches(self, sigma: float) -> tuple[str, ...]:
        return ("uncond",) if self.share == 0 else ("uncond", "cond")

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        uncond = predictions["uncond"]
        if self.share == 0:
            return uncond
        return Prediction(lerp(predictions, "uncond", "cond", self.share).x0, uncond.eps)


ENTRIES = (
    Entry("cfgpp", CFGPlusPlus, "arXiv 2406.08070, alg. 2", "x0 guided, the noise as without it"),
)
