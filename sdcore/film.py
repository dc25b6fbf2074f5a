"""A film from one picture to another: frames between prompts, between seeds, or both.

A frame is a picture like any other, whose settings say where on the way it is: its starting noise
on the arc towards the next seed's (`variation`), its words on the line to the next prompt
(`towards`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdcore.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 10_000  # frames of one film


@dataclass(frozen=True)
class Key:
    """A picture that the film comes by."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Frame:
    """What a frame is drawn with: the options of `prepare` by their names."""

    prompt: str
    seed: int
    towards: str | None = None
    variation: str | None = None


def keys_of(prompts: Sequence[str], seeds: Sequence[int]) -> list[Key]:
    """The pictures that a film comes by: prompts and seeds in pairs, where there are as many of
    one as of the other; else one prompt of several seeds, or several prompts of one seed.

    Raises InputError where there is nothing to go to, or the two do not pair.
    """
    count = max(len(prompts), len(seeds))
    if count < 2:
        raise InputError("a film goes from one picture to another: give two prompts, or two seeds")
    if {len(prompts), len(seeds)} - {1, count}:
        raise InputError(
            f"{len(prompts)} prompts and {len(seeds)} seeds do not pair: give as many, or one"
        )
    words = [*prompts] * (count // len(prompts))
    numbers = [*seeds] * (count // len(seeds))
    return [Key(*pair) for pair in zip(words, numbers, strict=True)]


def frames_of(keys: Sequence[Key], count: int) -> list[Frame]:
    """`count` frames evenly from the first key to the last. Raises InputError for fewer than 2.

    >>> [frame.variation for frame in frames_of([Key("red", 1), Key("red", 2)], 3)]
    [None, '2:0.5', None]
    """
    if not 2 <= count <= MOST:
        raise InputError(f"a film has 2 to {MOST} frames, not {count}")
    frames = []
    for number in range(count):
        begun, rest = divmod(number * (len(keys) - 1), count - 1)
        now, share = keys[begun], f"{rest / (count - 1):.6g}"
        if rest == 0:
            frames.append(Frame(now.prompt, now.seed))
            continue
        after = keys[begun + 1]
        frames.append(
            Frame(
                now.prompt,
                now.seed,
                None if after.prompt == now.prompt else f"{after.prompt}:{share}",
                None if after.seed == now.seed else f"{after.seed}:{share}",
            )
        )
    return frames


def animated(frames: Sequence[Image], per_second: float, mark: bool = True) -> bytes:
    """An animated WebP, over and over, of the first frame's size.

    mark: whether it says that a model made it. Raises InputError for a rate that is none.
    """
    from sdcore.marks import packet

    check_rate(per_second)
    size = frames[0].size
    first, *rest = (f.convert("RGB") if f.size == size else f.resize(size) for f in frames)
    more: dict[str, bytes] = {"xmp": packet(None).encode()} if mark else {}
    buffer = io.BytesIO()
    first.save(
        buffer, "WEBP", quality=90, save_all=True, append_images=rest,
        duration=round(1000 / per_second), loop=0, **more,
    )  # fmt: skip
    return buffer.getvalue()


def check_rate(per_second: float) -> None:
    """Raises InputError for what is no rate of frames."""
    if not 0.1 <= per_second <= 100:
        raise InputError(f"a film has 0.1 to 100 frames a second, not {per_second:g}")
