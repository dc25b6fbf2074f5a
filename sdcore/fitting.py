"""Pictures of any kind, brought to RGB and to size: what a picture is before it is latents.

upright   as the camera was held (EXIF)
16 bit    the upper 8 of them
alpha     laid over white; a mask's over black, which is not repainted
palette, CMYK, grey, one bit ...: to RGB
"""

from __future__ import annotations

import warnings

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from sdcore.errors import InputError, unknown

FITS = ("crop", "pad", "stretch")
SIDES = ("left", "top", "right", "bottom")
_WIDE = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # grey of more than 8 bits


def to_rgb(picture: Image.Image, behind: str = "white") -> Image.Image:
    """The picture as it is meant to be seen, in RGB. Raises InputError for one of no known kind.

    behind: the colour that is seen through it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of garbled EXIF, which says nothing then
            picture = ImageOps.exif_transpose(picture)
        if picture.mode in _WIDE:
            picture = _narrowed(picture)
        if picture.has_transparency_data:
            clear = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", clear.size, behind), clear)
        elif picture.mode == "F":
            raise InputError("it has floating-point values, whose range is not known")
        return picture.convert("RGB")
    except InputError as error:
        raise InputError(f"the picture cannot be used: {error}") from None
    except Exception as error:  # on garbled tags and palettes Pillow raises whatever it stumbles on
        raise InputError(f"the picture cannot be used: {error or type(error).__name__}") from None


def _narrowed(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits to one of 8."""
    wide = np.asarray(picture).astype(np.int64)
    if wide.min() < 0 or wide.max() > 0xFFFF:
        raise InputError("it has more than 16 bits a value")
    return Image.fromarray((wide >> 8).astype(np.uint8))


def check_fit(fit: str) -> str:
    """Raises InputError for no way of fitting."""
    if fit not in FITS:
        raise unknown("fit", fit, FITS)
    return fit


def fitted(picture: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """The picture of another size (width, height), by Lanczos.

    crop: scaled until it covers the size, and the middle of it taken. pad: scaled until it fits in,
    and its edges repeated to both sides. stretch: to the size, whatever becomes of the proportions.
    """
    if size == picture.size:
        return picture
    if fit == "crop":
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    if fit == "stretch":
        return picture.resize(size, Image.Resampling.LANCZOS)
    inner = ImageOps.contain(picture, size, Image.Resampling.LANCZOS)
    left, top = ((a - b) // 2 for a, b in zip(size, inner.size, strict=True))
    right, bottom = size[0] - inner.width - left, size[1] - inner.height - top
    return extended(inner, (left, top, right, bottom))


def extended(picture: Image.Image, sides: tuple[int, int, int, int]) -> Image.Image:
    """With so many pixels more at the left, top, right and bottom: those of the edge again."""
    left, top, right, bottom = sides
    pixels = np.asarray(picture)  # [H,W] or [H,W,3]
    around = [(top, bottom), (left, right), (0, 0)][: pixels.ndim]
    return Image.fromarray(np.pad(pixels, around, mode="edge"))


def extended_size(size: tuple[int, int], sides: tuple[int, int, int, int]) -> tuple[int, int]:
    """Width and height of a picture that is extended.

    >>> extended_size((512, 512), (64, 32, 0, 0))
    (576, 544)
    """
    left, top, right, bottom = sides
    return left + size[0] + right, top + size[1] + bottom


def read_sides(text: str) -> tuple[int, int, int, int]:
    """Pixels at the left, top, right, bottom. Raises InputError for what says none.

    >>> read_sides("left=64,top=32")
    (64, 32, 0, 0)
    """
    sides = dict.fromkeys(SIDES, 0)
    for part in text.split(","):
        name, _, pixels = (piece.strip() for piece in part.partition("="))
        if name not in sides or not (pixels.isascii() and pixels.isdigit()) or len(pixels) > 5:
            raise InputError(
                f"cannot read where to extend, {text!r}: write it like left=64,top=32 "
                f"({', '.join(SIDES)}, in pixels)"
            )
        sides[name] = int(pixels)
    if not any(sides.values()):
        raise InputError(f"{text!r} extends nothing: write it like left=64,top=32")
    return sides["left"], sides["top"], sides["right"], sides["bottom"]


def blurred(mask: Image.Image, radius: float) -> Image.Image:
    """With soft edges: a Gaussian of that standard deviation, in pixels."""
    return mask.filter(ImageFilter.GaussianBlur(radius))
