"""What A1111's interface does around repainting a part of a picture: what is under the mask at
first, and drawing that part alone, larger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sdcore.fitting import blurred, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

    Box = tuple[int, int, int, int]  # left, top, right, bottom

RADII = (128, 64, 32, 16, 8, 4, 2)  # pixels: what is near counts last, and so most


@dataclass(frozen=True)
class Region:
    """A part of a picture that is drawn by itself and put back."""

    original: Image  # RGB
    mask: Image  # L, of its size, soft: white is put back
    box: Box

    def cut(self, picture: Image) -> Image:
        """This part of a picture of the original's size."""
        return picture.crop(self.box)

    def put_back(self, drawn: Image) -> Image:
        """The original with what was drawn in its place."""
        from PIL import Image as pillow

        left, top, right, bottom = self.box
        whole = self.original.copy()
        whole.paste(drawn.resize((right - left, bottom - top), pillow.Resampling.LANCZOS),
                    (left, top))  # fmt: skip
        return pillow.composite(whole, self.original, self.mask)


def region_of(
    picture: Image, mask: Image, blur: float, padding: int, size: tuple[int, int]
) -> Region | None:
    """What is around the white of a mask, in the proportions of `size`; None where there is none.

    blur: of the mask's edges, a standard deviation. padding: pixels on each side.
    """
    soft = blurred(mask, blur) if blur else mask
    inner = soft.getbbox()
    if inner is None:
        return None
    width, height = mask.size
    left, top = max(0, inner[0] - padding), max(0, inner[1] - padding)
    right, bottom = min(width, inner[2] + padding), min(height, inner[3] + padding)
    wide, high = right - left, bottom - top
    if wide * size[1] < high * size[0]:
        left, right = _widened(left, right, round(high * size[0] / size[1]), width)
    else:
        top, bottom = _widened(top, bottom, round(wide * size[1] / size[0]), height)
    return Region(to_rgb(picture), soft, (left, top, right, bottom))


def _widened(begin: int, end: int, length: int, most: int) -> tuple[int, int]:
    """An interval of that length around another one, inside of 0 .. most."""
    length = min(max(length, end - begin), most)
    begin = min(max(0, begin - (length - (end - begin)) // 2), most - length)
    return begin, begin + length


def inverted(mask: Image) -> Image:
    """Black for white."""
    from PIL import ImageOps

    return ImageOps.invert(mask)


def filled(picture: Image, mask: Image) -> Image:
    """The picture with the colours from around the mask in it: averages over wide surroundings
    first, then over nearer and nearer ones, as far as these reach.

    mask: L, of the same size; what is white is filled.
    """
    from PIL import Image as pillow
    from PIL import ImageFilter

    rgb = to_rgb(picture)
    kept = pillow.eval(mask, lambda grey: 255 if grey < 128 else 0)
    if kept.getbbox() is None:
        return rgb
    black = pillow.new("RGB", rgb.size)
    known = pillow.composite(rgb, black, kept)
    weights = np.asarray(kept, np.float32)[..., None] / 255
    colours = np.asarray(known, np.float32)
    result = np.broadcast_to(colours.sum((0, 1)) / weights.sum(), colours.shape)
    for radius in RADII:
        near = ImageFilter.GaussianBlur(radius)
        weight = np.asarray(kept.filter(near), np.float32)[..., None] / 255
        colour = np.asarray(known.filter(near), np.float32) / np.maximum(weight, 1 / 255)
        share = np.clip(4 * weight, 0, 1)
        result = result * (1 - share) + np.clip(colour, 0, 255) * share
    done = result * (1 - weights) + colours * weights
    return pillow.fromarray(done.round().astype(np.uint8))
