"""The loop of training, a generator as the loop of drawing is: it yields every step.

The caller looks, saves and stops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sdcore.errors import InputError
from sdcore.training.optimizer import Average
from sdcore.training.ranks import Ranks


class NotFinite(InputError):
    """A loss that is no number; the weights are those of the step before."""


@dataclass(frozen=True)
class TrainStep:
    """One update of the weights, done."""

    step: int  # how many there have been
    loss: float  # weighted, the mean over all of its pictures
    rate: float  # of the first group
    norm: float  # of the gradient, before it was cut


@dataclass
class Updates:
    """One update of some weights after another.

    share: of the learning rate, by the number of the step from 0. max_norm: a larger gradient is
    cut to it; 0: never. ranks: of whom all take the mean of their gradients.
    """

    parameters: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: Average
    share: Callable[[int], float]
    max_norm: float = 1.0
    ranks: Ranks = field(default_factory=Ranks)
    updating: bool = field(default=False, init=False)  # while the weights are being changed

    def __post_init__(self) -> None:
        self._rates = [group["lr"] for group in self.optimizer.param_groups]

    def take(self, gradients: Callable[[int], Tensor], steps: Iterable[int]) -> Iterator[TrainStep]:
        """These steps, by their numbers from 0.

        gradients: fills the parameters' gradients, of this process, and returns its loss, a scalar.

        Raises NotFinite where a gradient is no number; and what `gradients` raises.
        """
        for step in steps:
            share = self.share(step)
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * share
            with self.ranks.together():
                loss = gradients(step)
            self.ranks.mean_gradients(self.parameters)
            with self.ranks.together():
                norm = self._cut(step)
            self.updating = True
            self.optimizer.step()
            self.average.update(step)
            self.updating = False
            rate = self._rates[0] * share
            yield TrainStep(step + 1, self.ranks.mean(loss).item(), rate, norm)

    def _cut(self, step: int) -> float:
        """The gradient's norm; where it is larger than allowed, the gradient is cut to that."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_norm or math.inf).item()
        if not math.isfinite(norm):
            raise NotFinite(
                f"the gradient is {norm} at step {step + 1}: take a lower --lr, or --dtype float32"
            )
        return norm
