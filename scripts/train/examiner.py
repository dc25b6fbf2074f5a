"""The examiner: says what a picture shows, so that pictures can be marked without a person.

A small convolutional network that has seen rendered pictures only, every combination of words
equally often, and nothing of the model that it examines. It looks for things on a grid of cells and
names what it finds there; places and orders are then measured, not guessed.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scripts.train.fit import Schedule, fit
from scripts.train.pictures import to_tensor
from scripts.train.world import (
    COLOURS,
    OBJECTS,
    PLACES,
    RELATIONS,
    SCENES,
    SIZES,
    Description,
    Rng,
    Thing,
    draw,
    layout,
)

SIZE, CELLS = 128, 16  # a picture's side in pixels and in cells
SEED = 2_000  # of the examiner's own pictures; the model learns from those of seed 1
NEAR = 2  # cells: what is found no farther apart than this is one thing
CERTAIN = 0.4  # how much of a thing's heat must be seen at its centre
WORDS = {"object": OBJECTS, "colour": COLOURS, "size": SIZES}
SPLIT = (1, *map(len, WORDS.values()))
SCHEDULE = Schedule(steps=600, lr=3e-3, warmup=50, flat=0.3)
BATCH, POOL = 64, 8_000


@dataclass(frozen=True)
class Found:
    """A thing in a picture, and where its middle is, in shares of the picture."""

    thing: Thing
    x: float
    y: float


@dataclass(frozen=True)
class Reading:
    """What the examiner sees: the scene, and things, the clearest first."""

    scene: str
    found: tuple[Found, ...]


# What it learns from


def any_description(rng: Rng) -> Description:
    """One thing or two, equally often, of any colour: held-out pairs are as likely as others."""

    def pick(words: Sequence[str]) -> str:
        return words[int(rng.integers(len(words)))]

    def thing(sizes: Sequence[str]) -> Thing:
        return Thing(pick(OBJECTS), pick(COLOURS), pick(sizes))

    scene, two = pick(SCENES), bool(rng.integers(2))
    if not two:
        return Description(scene, (thing(SIZES),), place=pick(PLACES))
    first = second = thing(SIZES[:2])
    while (second.object, second.colour) == (first.object, first.colour):
        second = thing(SIZES[:2])
    return Description(scene, (first, second), relation=pick(RELATIONS))


@dataclass(frozen=True)
class Specimen:
    """A rendered picture, uint8 [128, 128, 3], with what it shows and the middles of its things."""

    pixels: np.ndarray
    description: Description
    middles: tuple[tuple[float, float], ...]


def specimen(description: Description, seed: Sequence[int]) -> Specimen:
    """The renderer's picture of `description`; `seed` gives the rest of its looks."""
    # draw() begins with the layout, so the same generator state gives the same boxes.
    boxes = layout(description, np.random.default_rng(seed))
    picture = draw(description, np.random.default_rng(seed), SIZE)
    middles = tuple((box.x, box.top + box.height / 2) for box in boxes)
    return Specimen(np.asarray(picture), description, middles)


def lesson(index: int) -> Specimen:
    """The examiner's own picture `index`."""
    return specimen(any_description(np.random.default_rng([SEED, index])), [SEED, index, 1])


@torch.autocast("cpu", enabled=False)  # pixels need more than bfloat16's 8 bits
def augment(x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures [B,3,H,W] as a decoder might have made them: moved, wobbly, smeared, noisy, off.

    Also returns by how much each was moved, [B,2] in shares of the picture. Colours keep their
    names.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(x), *shape, generator=rng)

    def clouds(field: Tensor) -> Tensor:
        """A coarse field, smoothly as large as the picture."""
        return F.interpolate(field, x.shape[-2:], mode="bilinear")

    def normal(channels: int, cells: int) -> Tensor:
        return torch.randn(len(x), channels, cells, cells, generator=rng)

    shift = uniform(-0.05, 0.05, 2)
    theta = torch.eye(2, 3).repeat(len(x), 1, 1)
    theta[:, :, 2] = -2 * shift
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    wobble = uniform(0, 0.016, 1, 1, 1) * clouds(normal(2, CELLS))  # 2 is the whole picture
    grid = grid + wobble.permute(0, 2, 3, 1)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    smear = uniform(0, 2, 1, 1, 1) * clouds(uniform(0, 1, 1, 8, 8))  # here more, there less
    x = torch.lerp(x, clouds(F.avg_pool2d(x, 4)), smear.clamp(max=1))
    x = x * uniform(0.94, 1.06, 3, 1, 1) + uniform(-0.05, 0.05, 1, 1, 1)
    x = x + uniform(0, 0.06, 1, 1, 1) * normal(3, SIZE)
    x = x + uniform(0, 0.06, 1, 1, 1) * clouds(normal(3, CELLS))
    return x.clamp(-1, 1), shift


# The network


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Sequential(_conv(width, width), nn.ReLU())
        self.second = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Examiner(nn.Module):
    """Pictures [B,3,128,128] in [-1, 1] to logits: (cells [B,24,16,16], scenes [B,8]).

    Of a cell: heat (is this the middle of a thing?), then object, colour and size of that thing.
    """

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 128), depth: int = 3):
        super().__init__()
        a, b, c = widths
        self.body = nn.Sequential(
            *(_conv(3, a, 2), nn.ReLU()),
            *(_conv(a, b, 2), nn.ReLU(), _Residual(b)),
            *(_conv(b, c, 2), nn.ReLU(), *(_Residual(c) for _ in range(depth))),
        )
        self.cells = nn.Conv2d(c, sum(SPLIT), 1)
        self.scene = nn.Linear(c, len(SCENES))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.cells(features).float(), self.scene(features.mean(dim=(2, 3))).float()


def heat(middles: Tensor) -> Tensor:
    """[N,2] positions in shares of the picture to [N,16,16]: 1 in the middle, 0.6 a cell away."""
    centres = (torch.arange(CELLS) + 0.5) / CELLS
    x, y = (((centres - at[:, None]) * CELLS).square() for at in middles.unbind(1))
    return torch.exp(-(x[:, None, :] + y[:, :, None]) / 2)


def lesson_loss(
    outputs: tuple[Tensor, Tensor], descriptions: Sequence[Description], middles: Sequence[Tensor]
) -> tuple[Tensor, float]:
    """The loss of a batch, and the share of right answers at the things' own cells.

    middles: for each picture, where its things are, [1 or 2, 2].
    """
    cells, scenes = outputs
    counts = [len(d.things) for d in descriptions]
    owner = torch.arange(len(cells)).repeat_interleave(torch.tensor(counts))  # of each thing
    heats = heat(torch.cat(list(middles)))
    wanted = torch.stack([each.amax(0) for each in heats.split(counts)])
    seen, *named = cells.split(SPLIT, dim=1)
    total = F.binary_cross_entropy_with_logits(seen[:, 0], wanted, reduction="sum") / len(owner)
    near = heats * (heats > 0.5)
    rows, right = torch.arange(len(owner)), []
    for (what, words), logits in zip(WORDS.items(), named, strict=True):
        facts = [getattr(t, what) for d in descriptions for t in d.things]
        truth = torch.tensor([words.index(fact) for fact in facts])
        log_p = logits.log_softmax(dim=1)[owner, truth]  # [N,16,16]
        total = total - (near * log_p).sum() / near.sum()
        at = near.flatten(1).argmax(1)
        right.append((logits[owner].flatten(2)[rows, :, at].argmax(1) == truth).float().mean())
    truth = torch.tensor([SCENES.index(d.scene) for d in descriptions])
    total = total + F.cross_entropy(scenes, truth)
    right.append((scenes.argmax(1) == truth).float().mean())
    return total, torch.stack(right).mean().item()


def learn(examiner: Examiner, schedule: Schedule, checkpoint: Path, batch: int, pool: int) -> None:
    """Train in place on `pool` pictures, each drawn when its turn first comes."""
    examiner.train()
    remembered = cache(lesson)

    def loss(step: int) -> tuple[Tensor, str]:
        rng = np.random.default_rng([SEED, step, 2])
        chosen = [remembered(int(i)) for i in rng.choice(pool, batch, replace=False)]
        x = to_tensor(np.stack([c.pixels for c in chosen]))
        x, shift = augment(x, torch.Generator().manual_seed(step))
        middles = [torch.tensor(c.middles) + s for c, s in zip(chosen, shift, strict=True)]
        outputs = examiner(x.contiguous(memory_format=torch.channels_last))
        total, right = lesson_loss(outputs, [c.description for c in chosen], middles)
        return total, f"{right:.3f} right"

    fit(examiner, loss, schedule, checkpoint)


def new_examiner() -> Examiner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Examiner()


def load_examiner(work: Path) -> Examiner:
    """The examiner kept under `work`, trained now (minutes) if it is not there.

    It is kept under a digest of its recipe and of some lessons as it would see them: a repainted
    world gets another examiner.
    """
    pixels = to_tensor(np.stack([lesson(index).pixels for index in range(32)]))
    seen, _ = augment(pixels, torch.Generator().manual_seed(0))
    digest = hashlib.sha256(repr((SCHEDULE, BATCH, POOL)).encode())
    digest.update((seen * 127).to(torch.int8).numpy().tobytes())
    folder = work / digest.hexdigest()[:12]
    examiner, kept = new_examiner(), folder / "examiner.safetensors"
    if kept.exists():
        examiner.load_state_dict(load_file(kept))
    else:
        print(f"training the examiner, once, into {folder} ...", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        learn(examiner, SCHEDULE, folder / "examiner.pt", BATCH, POOL)
        partial = kept.with_suffix(".partial")
        save_file(examiner.state_dict(), partial)
        partial.rename(kept)
    return examiner.eval()


# The examination


@torch.inference_mode()
def read(examiner: Examiner, pictures: Sequence[Image.Image]) -> list[Reading]:
    """What each picture shows. Other sizes than 128 are scaled to it."""
    readings: list[Reading] = []
    for picture in pictures:
        pixels = np.asarray(picture.convert("RGB").resize((SIZE, SIZE)))
        cells, scenes = examiner(to_tensor(pixels[None]))
        readings.append(Reading(SCENES[int(scenes.argmax())], tuple(_things(cells[0]))))
    return readings


def _things(cells: Tensor) -> list[Found]:
    """The peaks of the heat in [24,16,16], the highest first, named by what their cells say."""
    seen, *named = cells.split(SPLIT)
    warmth = seen.sigmoid()  # [1,16,16]
    peaks = warmth == F.max_pool2d(warmth, 2 * NEAR + 1, stride=1, padding=NEAR)
    at = (peaks & (warmth > CERTAIN))[0].nonzero()
    at = at[warmth[0, at[:, 0], at[:, 1]].argsort(descending=True)]
    around = F.pad(warmth[0], (1, 1, 1, 1))
    found: list[Found] = []
    for row, column in at.tolist():
        words = [
            words[int(logits[:, row, column].argmax())]
            for words, logits in zip(WORDS.values(), named, strict=True)
        ]
        # Between cells: the centre of gravity of the heat.
        near = around[row : row + 3, column : column + 3]
        steps = torch.arange(-1.0, 2.0)
        x = column + 0.5 + float((near.sum(0) * steps).sum() / near.sum())
        y = row + 0.5 + float((near.sum(1) * steps).sum() / near.sum())
        found.append(Found(Thing(*words), x / CELLS, y / CELLS))
    return found
