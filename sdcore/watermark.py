"""A watermark in the pixels that nobody sees: a word of a few letters, by invisible-watermark.

It lies in the coarse wavelets of the colours, in the largest singular value of each block
(dwtDctSvd). It outlives a new file and JPEG of quality 85; cropping, scaling and whoever wants to
be rid of it take it away. diffusers marks SDXL's pictures by the same package, wherever that
happens to be installed, by dwtDct, which cannot be read back bit by bit even from a PNG.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdcore.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

METHOD = "dwtDctSvd"
MOST_LETTERS = 8  # the fewer, the more often each bit is there
LEAST_PIXELS = 256 * 256  # of a picture, below which there is no room


def check_watermark(word: str, width: int, height: int) -> str:
    """The word. Raises InputError where it cannot be put into pictures of this size, or here."""
    if not (1 <= len(word) <= MOST_LETTERS and word.isascii() and word.isprintable()):
        raise InputError(f"a watermark is 1 to {MOST_LETTERS} letters of ASCII, not {word!r:.40}")
    if width * height < LEAST_PIXELS:
        raise InputError(
            f"a watermark needs at least {LEAST_PIXELS:,} pixels, as 256x256, and {width}x{height} "
            f"are {width * height:,}"
        )
    _package()
    return word


def watermarked(pictures: Sequence[Image], word: str) -> list[Image]:
    """The pictures with the word in them, each the same every time. Raises InputError."""
    for picture in pictures:  # memory may have been short: they may be smaller than was asked for
        check_watermark(word, *picture.size)
    encoder = _package().WatermarkEncoder()
    encoder.set_watermark("bytes", word.encode("ascii"))
    return [_changed(picture, encoder) for picture in pictures]


def read_watermark(picture: Image, letters: int) -> str:
    """The word of so many letters in a picture; where there is none, any. Raises InputError."""
    import numpy as np

    check_watermark("x" * letters, *picture.size)
    pixels = np.asarray(picture.convert("RGB"))[..., ::-1].copy()
    found = _package().WatermarkDecoder("bytes", 8 * letters).decode(pixels, METHOD)
    return bytes(found).decode("ascii", "replace")


def _changed(picture: Image, encoder: Any) -> Image:
    import numpy as np
    from PIL import Image as pillow

    pixels = np.asarray(picture.convert("RGB"))[..., ::-1].copy()  # OpenCV's order of colours
    return pillow.fromarray(encoder.encode(pixels, METHOD)[..., ::-1].copy())


def _package() -> Any:
    try:
        import imwatermark  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "a watermark needs the package invisible-watermark: pip install 'sdcore[watermark]'"
        ) from None
    return imwatermark
