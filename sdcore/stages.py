"""What the UNet is told, where that changes on the way down: one stage for each stretch of sigmas.

A prompt may change midway ([a:b:0.5]). The change is tied to a noise level and not to a count, so
that a solver may ask the model as often as it likes, and at any sigma.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdcore.sampling import Denoise, Prediction

Told = Mapping[str, Tensor]  # argument of the UNet -> [B,...]
Conditions = Mapping[str, Told]  # by branch


@dataclass(frozen=True)
class Stage:
    """What the UNet is told from some sigma down."""

    sigma: float  # the highest that belongs to it; inf for the first
    conditions: Conditions
    lengths: tuple[int, ...]  # tokens of each picture's context before it repeats itself

    def of(self, part: slice) -> Stage:
        """The same for some of the pictures, equal to what they would be told alone."""
        lengths = self.lengths[part]
        length = math.lcm(*lengths)
        own = {
            branch: {
                key: rows[part, :length] if key == "context" else rows[part]
                for key, rows in told.items()
            }
            for branch, told in self.conditions.items()
        }
        return Stage(self.sigma, own, lengths)


@dataclass(frozen=True)
class Staged:
    """A Denoise made of several: each from its sigma down to where the next begins."""

    stages: Sequence[tuple[float, Denoise]]  # sigmas falling; the first is asked above its own, too

    def __call__(self, x: Tensor, sigma: float) -> Prediction:
        begun = [denoise for start, denoise in self.stages if sigma <= start]
        return (begun or [self.stages[0][1]])[-1](x, sigma)


def stack(sigma: float, told: Mapping[str, Sequence[Told]]) -> Stage:
    """One stage of all pictures. told: for each branch what each picture is told, [1,...].

    Contexts of unequal length, from prompts of more or fewer chunks, are repeated to their least
    common multiple. That changes nothing: attention is a mean over the tokens, and the mean of a
    list said twice is that of the list.
    """
    lengths = tuple(
        math.lcm(*(row["context"].shape[1] for row in rows))
        for rows in zip(*told.values(), strict=True)
    )
    length = math.lcm(*lengths)
    conditions = {
        branch: {
            key: torch.cat([_repeated(key, row[key], length) for row in rows]) for key in rows[0]
        }
        for branch, rows in told.items()
    }
    return Stage(sigma, conditions, lengths)


def _repeated(key: str, row: Tensor, length: int) -> Tensor:
    if key != "context" or row.shape[1] == length:
        return row
    return row.repeat(1, length // row.shape[1], 1)
