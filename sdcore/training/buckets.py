"""Sizes by aspect ratio: each picture is trained at the one nearest to its own, of equal area."""

from __future__ import annotations

import math
from functools import cache

from PIL import Image

from sdcore.errors import InputError
from sdcore.images import MAX_PIXELS

Size = tuple[int, int]  # width, height in pixels


@cache
def bucket_sizes(side: int, step: int) -> tuple[Size, ...]:
    """Every size of at most side^2 pixels whose sides are multiples of `step`.

    From half to twice `side`; for each width the greatest height, and the other way round.
    """
    sizes = {(side, side)}
    for width in range(_up(side / 2, step), 2 * side + 1, step):
        height = min(side * side // width, 2 * side) // step * step
        if height >= side / 2:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def bucket_of(size: Size, sizes: tuple[Size, ...]) -> Size:
    """The one whose aspect ratio is nearest by its logarithm; of two the larger."""
    ratio = math.log(size[0] / size[1])
    return min(sizes, key=lambda s: (abs(math.log(s[0] / s[1]) - ratio), -s[0] * s[1]))


def covering(picture: Image.Image, size: Size) -> tuple[Image.Image, Size]:
    """The picture scaled until it covers a size, the middle of it, and where that was cut.

    The cut is (left, top) in pixels of the scaled picture, as SDXL is told it.

    Raises InputError for a picture so long and thin that scaled it would have too many pixels.
    """
    scale = max(size[0] / picture.width, size[1] / picture.height)
    scaled = tuple(max(a, round(b * scale)) for a, b in zip(size, picture.size, strict=True))
    if scaled[0] * scaled[1] > MAX_PIXELS:
        width, height = picture.size
        raise InputError(f"is {width}x{height}, too long and thin for {size[0]}x{size[1]}")
    if scaled != picture.size:
        picture = picture.resize((scaled[0], scaled[1]), Image.Resampling.LANCZOS)
    left, top = ((a - b) // 2 for a, b in zip(scaled, size, strict=True))
    return picture.crop((left, top, left + size[0], top + size[1])), (left, top)


def mirrored_cut(scaled_width: int, width: int, cut: Size) -> Size:
    """Where a picture was cut, if it had been mirrored before."""
    return scaled_width - width - cut[0], cut[1]


def _up(number: float, step: int) -> int:
    return math.ceil(number / step) * step
