"""A batch: clean latents, noise, noise levels and captions, all chance from its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sdcore.schedulers.flow_schedule import Schedule
from sdcore.training.conditions import Text, Told
from sdcore.training.latents import Item
from sdcore.training.order import LOOKS, NOISE, Order, rng_of, torch_rng_of


@dataclass(frozen=True)
class Batch:
    """Pictures of one size, each at a noise level of its own. B rows."""

    x0: Tensor  # [B,C,h,w], of unit variance
    eps: Tensor
    sigma: Tensor  # [B]
    t: Tensor  # [B], that level on the network's clock
    texts: tuple[Text, ...]
    told: tuple[Told, ...]
    names: tuple[str, ...]  # of the files

    def part(self, rows: slice) -> Batch:
        """Some of its rows."""
        return Batch(
            self.x0[rows], self.eps[rows], self.sigma[rows], self.t[rows], self.texts[rows],
            self.told[rows], self.names[rows],
        )  # fmt: skip

    def to(self, device: torch.device) -> Batch:
        x0, eps, sigma, t = (x.to(device) for x in (self.x0, self.eps, self.sigma, self.t))
        return replace(self, x0=x0, eps=eps, sigma=sigma, t=t)


@dataclass(frozen=True)
class Batches:
    """Batch after batch of some pictures, by number.

    dropout: share of looks without a caption; empty: what stands for none.
    offset: of the noise's mean: eps + offset * n, n ~ N(0, 1) for each picture and channel
        (Guttenberg 2023, "Diffusion with offset noise").
    stream: sets that are drawn from side by side have streams of their own.
    """

    items: Sequence[Item]
    order: Order
    schedule: Schedule
    seed: int
    dropout: float = 0.0
    empty: Text = ""
    offset: float = 0.0
    stream: int = 0

    def __len__(self) -> int:
        """Of an epoch."""
        return len(self.order)

    def __call__(self, number: int) -> Batch:
        rng = rng_of(self.seed, number, LOOKS + 100 * self.stream)
        noise = torch_rng_of(self.seed, number, NOISE + 100 * self.stream)
        chosen = [self.items[i] for i in self.order(number)]
        sides = [int(rng.integers(len(item.mean))) for item in chosen]  # mirrored or not
        texts = [self._text(item, rng) for item in chosen]
        sigmas = [self.schedule.sigmas[i] for i in levels(len(chosen), len(self.schedule), rng)]
        mean, std = (
            torch.stack(
                [getattr(item, name)[side] for item, side in zip(chosen, sides, strict=True)]
            )
            for name in ("mean", "std")
        )
        x0 = mean + std * torch.randn(mean.shape, generator=noise)
        eps = torch.randn(mean.shape, generator=noise)
        if self.offset:
            eps = eps + self.offset * torch.randn(*mean.shape[:2], 1, 1, generator=noise)
        return Batch(
            x0=x0,
            eps=eps,
            sigma=torch.tensor(sigmas),
            t=torch.tensor([self.schedule.timestep(sigma) for sigma in sigmas]),
            texts=tuple(texts),
            told=tuple(told_of(item, side) for item, side in zip(chosen, sides, strict=True)),
            names=tuple(str(item.example.path) for item in chosen),
        )

    def _text(self, item: Item, rng: np.random.Generator) -> Text:
        said = item.example.captions[int(rng.integers(len(item.example.captions)))]
        return self.empty if rng.random() < self.dropout else said


def told_of(item: Item, side: int = 0) -> Told:
    """What SDXL is told of a picture: its size as a file, where it was cut, its size here."""
    return Told(item.original, item.cuts[side], item.size)


def levels(count: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of the table for a batch [count], each evenly distributed over 0 .. steps - 1.

    Stratified: every batch of `count` looks into each `count`-th part of the noise levels once.
    """
    u = (rng.permutation(count) + rng.random(count)) / count
    return np.minimum((u * steps).astype(np.int64), steps - 1)
