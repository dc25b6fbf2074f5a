"""Seeded noise, one stream per image: a picture does not depend on its neighbours in the batch.

Each image's stream is `torch.randn` from a CPU generator with its seed, always float32: equal on
any device, and equal to diffusers' `randn_tensor` with a list of such generators, which draws the
starting noise first and then once per stochastic step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcore.errors import InputError


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Between two noises [B,C,H,W], picture by picture, on the arc that keeps their length.

    share: 0 is a, 1 is b (Shoemake 1985).
    """
    cosine = F.cosine_similarity(a.double().flatten(1), b.double().flatten(1))
    cosine = cosine.clamp(-1, 1)[:, None, None, None]
    angle = torch.acos(cosine)
    arc = torch.sin(angle)
    weights = [torch.where(arc > 1e-6, torch.sin(part * angle) / arc, part)
               for part in (1 - share, share)]  # fmt: skip
    return (weights[0] * a + weights[1] * b).to(a.dtype)


def slerp_columns(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The same column by column, each on an arc of its own: what A1111's interface does."""
    cosine = F.cosine_similarity(a, b, dim=2).clamp(-1, 1)
    angle = torch.acos(cosine)[:, :, None]
    arc = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
    # a picture that is varied by its own seed has no arc
    alike = (cosine.flatten(1).mean(1) > 0.9995)[:, None, None, None]
    return torch.where(alike, torch.lerp(a, b, share), arc)


@dataclass(frozen=True)
class SeededNoise:
    """A Noise that is a pure function of (seeds, draw number): rewinding gives the same tensors.

    seeds: one per image, each -2^63 .. 2^64 - 1, as torch takes them.
    shape: of one image's latents, (C, H, W).
    device: where the tensors go; they are drawn on the CPU.
    spent: how many draws come before the loop's first: 1 for the starting noise; 2 in diffusers'
        image-to-image, which first samples the VAE's posterior.
    begin: which of them is the starting noise; None: the last. diffusers' inpainting draws it
        before it samples the posterior: 0.
    delta: the loop's draws are those of the seeds that are so much larger, from their first;
        0: they go on in the same stream. A1111's interface calls it ENSD.

    Raises InputError for no seeds or a seed out of range.
    """

    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    device: torch.device | str = "cpu"
    spent: int = 1
    begin: int | None = None
    delta: int = 0
    # The generators' states before each draw, so that draw k need not repeat the others. 5 KB each.
    _states: dict[int, list[Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("at least one seed is needed")
        for seed in self.seeds:
            if not -(2**63) <= seed < 2**64:
                raise InputError(f"seed {seed} is out of range: {-(2**63)} to {2**64 - 1}")
        object.__setattr__(self, "seeds", tuple(self.seeds))
        object.__setattr__(self, "shape", tuple(self.shape))

    def __call__(self, draw: int, sigma: float, sigma_next: float) -> Tensor:
        """The loop's draw number `draw` (from 0): [B,C,H,W], unit variance at any sigma."""
        return self._later.stream(draw) if self.delta else self.stream(self.spent + draw)

    @cached_property
    def _later(self) -> SeededNoise:
        seeds = tuple(seed + self.delta for seed in self.seeds)
        return SeededNoise(seeds, self.shape, self.device)

    def start(self) -> Tensor:
        """The starting noise [B,C,H,W], unit variance."""
        return self.stream(self.spent - 1 if self.begin is None else self.begin)

    def stream(self, number: int) -> Tensor:
        """Draw `number` (from 0) of every image's stream, [B,C,H,W]."""
        known = number
        while known and known not in self._states:
            known -= 1
        for index in range(known, number):
            self._draw(index)
        return self._draw(number).to(self.device)

    def _draw(self, number: int) -> Tensor:
        """Draw `number`, whose states are known, and remember the states after it."""
        images, after = [], []
        for image, seed in enumerate(self.seeds):
            generator = torch.Generator().manual_seed(seed)
            if number:
                generator.set_state(self._states[number][image])
            images.append(torch.randn(1, *self.shape, generator=generator, dtype=torch.float32))
            after.append(generator.get_state())
        self._states[number + 1] = after
        return torch.cat(images)


@dataclass(frozen=True)
class OwnNoise:
    """A user's noise, which has start() and the loop's draws alone, where a SeededNoise is taken.

    make: (seeds, shape, device) -> that noise: for some of the pictures it is made again.
    spent, begin: as of a SeededNoise; the user's noise counts its own draws.
    """

    make: Callable[[tuple[int, ...], tuple[int, ...], torch.device | str], Any]
    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    device: torch.device | str = "cpu"
    spent: int = 1
    begin: int | None = None

    @cached_property
    def _made(self) -> Any:
        return self.make(self.seeds, self.shape, self.device)

    def __call__(self, draw: int, sigma: float, sigma_next: float) -> Tensor:
        """The loop's draw number `draw` (from 0): [B,C,H,W]."""
        return self._made(draw, sigma, sigma_next)

    def start(self) -> Tensor:
        """The starting noise [B,C,H,W]."""
        return self._made.start()

    def stream(self, number: int) -> Tensor:
        """What the VAE's posterior is sampled with, [B,C,H,W]: of a stream apart.

        The user's noise may well begin with its seeds' first draw, and is not to meet it again.
        """
        apart = tuple(seed % 2**64 ^ _APART for seed in self.seeds)
        return SeededNoise(apart, self.shape, self.device).stream(number)


_APART = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: no seed that anybody counts to


@dataclass(frozen=True)
class PartOfNoise:
    """Any Noise, of some of the pictures that it draws for."""

    noise: Callable[[int, float, float], Tensor]
    part: slice

    def __call__(self, draw: int, sigma: float, sigma_next: float) -> Tensor:
        """Those pictures' part of the draw, [part of B,C,H,W]."""
        return self.noise(draw, sigma, sigma_next)[self.part]


def part_of(noise: Any, part: slice) -> Any:
    """The noise of some of the pictures: made for their seeds alone, where it has seeds."""
    if isinstance(noise, SeededNoise | OwnNoise):
        return replace(noise, seeds=noise.seeds[part])
    return PartOfNoise(noise, part)
