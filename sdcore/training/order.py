"""Which pictures are looked at when: a pure function of the seed and the number of the batch.

Nothing is drawn from a generator that evolves, so that a training which was stopped goes on as if
it had not been.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

# What chance is for: the third word of a generator's seed.
ORDER, LOOKS, NOISE, NETWORK, PRIOR, GRID = range(6)


def rng_of(seed: int, number: int, what: int) -> np.random.Generator:
    """numpy's generator for one purpose at one place of a training."""
    return np.random.default_rng([seed, number, what])


def torch_rng_of(seed: int, number: int, what: int) -> torch.Generator:
    """The same, torch's, on the CPU."""
    return torch.Generator().manual_seed(int(rng_of(seed, number, what).integers(2**63)))


@dataclass(frozen=True)
class Order:
    """Batches without end, epoch after epoch: each of pictures of one size, and none left out.

    sizes: of every picture. repeats: how often an epoch looks at it. batch: pictures in a batch; of
    a size that does not fill its last one, some come twice.
    """

    sizes: tuple[Hashable, ...]
    repeats: tuple[int, ...]
    batch: int
    seed: int

    def __len__(self) -> int:
        """Batches of an epoch."""
        return sum(-(-len(looks) // self.batch) for looks in self._looks)

    @cached_property
    def _looks(self) -> list[list[int]]:
        """For each size the pictures that an epoch looks at."""
        looks: dict[Hashable, list[int]] = {}
        for i, (size, count) in enumerate(zip(self.sizes, self.repeats, strict=True)):
            looks.setdefault(size, []).extend([i] * count)
        return list(looks.values())

    def __call__(self, number: int) -> Sequence[int]:
        """The pictures of batch `number`, from 0."""
        epoch, place = divmod(number, len(self))
        return _epoch(self, epoch)[place]


@lru_cache(maxsize=4)
def _epoch(order: Order, epoch: int) -> list[list[int]]:
    rng = rng_of(order.seed, epoch, ORDER)
    batches = []
    for looks in order._looks:
        mixed = [looks[i] for i in rng.permutation(len(looks))]
        filled = [mixed[i % len(mixed)] for i in range(-(-len(mixed) // order.batch) * order.batch)]
        batches += [filled[i : i + order.batch] for i in range(0, len(filled), order.batch)]
    return [batches[i] for i in rng.permutation(len(batches))]
