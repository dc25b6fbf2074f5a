"""How far what was drawn is from a reference: picture by picture, or in distribution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SWAPS = 1024  # that are tried where there are more than so many


def rms(values: Tensor) -> float:
    """Root mean square."""
    return values.double().square().mean().sqrt().item()


@dataclass(frozen=True)
class InDistribution:
    """What tells two sets of samples apart, which are paired by their seeds.

    energy: the energy distance, 2 E|X - Y| - E|X - X'| - E|Y - Y'|, |.| the root mean square of a
        value (Szekely and Rizzo 2013); without pairs of the same seed, which share their starting
        noise, so that it is unbiased and may be negative.
    p: the share of all swaps of X and Y within the seeds that are as far apart: where it is large,
        the sets cannot be told apart. Of n seeds the least possible is 1 / 2^(n - 1).
    """

    energy: float
    p: float
    seeds: int


def in_distribution(x: Sequence[Tensor], y: Sequence[Tensor]) -> InDistribution | None:
    """The distance of two sets of latents, x[i] and y[i] of the same seed; None for one seed."""
    n = len(x)
    if n < 2:
        return None
    rows = torch.stack([each.double().flatten() for each in (*x, *y)])
    gaps = torch.cdist(rows, rows) / rows.shape[1] ** 0.5
    same = torch.arange(n)

    def energy(swapped: Sequence[int]) -> float:
        swap = torch.tensor(swapped, dtype=torch.bool)
        first = torch.where(swap, same + n, same)
        second = torch.where(swap, same, same + n)
        return (2 * _apart(gaps, first, second) - _apart(gaps, first, first)
                - _apart(gaps, second, second))  # fmt: skip

    seen = energy([0] * n)
    if n - 1 <= math.log2(SWAPS):
        swaps = [(0, *each) for each in itertools.product((0, 1), repeat=n - 1)]
    else:
        chance = torch.Generator().manual_seed(0)
        drawn = torch.randint(0, 2, (SWAPS - 1, n), generator=chance).tolist()
        swaps = [(0,) * n, *drawn]
    most = 1e-12 + 1e-9 * abs(seen)
    as_far = sum(energy(each) >= seen - most for each in swaps)
    return InDistribution(seen, as_far / len(swaps), n)


def _apart(gaps: Tensor, first: Tensor, second: Tensor) -> float:
    """The mean distance between samples of different seeds."""
    block = gaps[first][:, second]
    n = len(first)
    return ((block.sum() - block.diagonal().sum()) / (n * (n - 1))).item()
