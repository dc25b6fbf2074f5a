"""Pictures of any kind: to RGB, upright, to size."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdcore.errors import InputError
from sdcore.fitting import extended, fitted, read_sides, to_rgb
from sdcore.images import open_picture

RED, WHITE = (255, 0, 0), (255, 255, 255)


def colour(picture: Image.Image, at: tuple[int, int] = (0, 0)) -> object:
    return picture.getpixel(at)


def read_again(picture: Image.Image, kind: str, **how) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("RGBA", (2, 2), (255, 0, 0, 255)), RED),
        (Image.new("RGBA", (2, 2), (9, 9, 9, 0)), WHITE),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 128)), (127, 127, 127)),
        (Image.new("LA", (2, 2), (9, 0)), WHITE),
        (Image.new("1", (2, 2), 1), WHITE),
        (Image.new("L", (2, 2), 7), (7, 7, 7)),
        (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), RED),
        (Image.new("I", (2, 2), 0xFFFF), WHITE),
        (Image.new("I;16", (2, 2), 0x80FF), (128, 128, 128)),
        (Image.new("RGB", (2, 2), RED).convert("P"), RED),
        (Image.new("HSV", (2, 2), (0, 255, 255)), RED),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_every_mode_is_rgb(picture: Image.Image, expected: tuple[int, int, int]) -> None:
    assert to_rgb(picture).mode == "RGB"
    assert colour(to_rgb(picture)) == expected


def test_a_palette_with_a_hole() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    read = read_again(picture, "PNG", transparency=1)
    assert [colour(to_rgb(read), (x, 0)) for x in (0, 1)] == [RED, WHITE]
    assert colour(to_rgb(read, "black"), (1, 0)) == (0, 0, 0)


def test_a_photo_is_upright() -> None:
    """Orientation 6: to be turned by 90 degrees; the left pixel becomes the upper one."""
    picture = Image.new("RGB", (2, 1), RED)
    picture.putpixel((1, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = to_rgb(read_again(picture, "PNG", exif=exif))
    assert (turned.size, colour(turned)) == ((1, 2), RED)


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        (Image.new("F", (2, 2)), "floating-point values"),
        (Image.new("I", (2, 2), 1 << 20), "more than 16 bits"),
        (Image.new("I", (2, 2), -1), "more than 16 bits"),
    ],
)
def test_values_of_no_known_range(picture: Image.Image, why: str) -> None:
    with pytest.raises(InputError, match=why):
        to_rgb(picture)


def test_garbled_tags_are_left_out(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (4, 4), RED).save(data, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "odd.jpg").write_bytes(data.getvalue())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_rgb(open_picture(tmp_path / "odd.jpg")).size == (4, 4)


def halves() -> Image.Image:
    """40x20: red, and blue from x = 20 on."""
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste((0, 0, 255), (20, 0, 40, 20))
    return picture


def test_the_three_ways_of_fitting() -> None:
    crop, pad, stretch = (fitted(halves(), (20, 20), how) for how in ("crop", "pad", "stretch"))
    assert crop.size == pad.size == stretch.size == (20, 20)
    assert np.array_equal(np.asarray(crop), np.asarray(halves().crop((10, 0, 30, 20))))
    # Padded: 20x10 in the middle, and its first and last row above and below.
    inner = np.asarray(halves().resize((20, 10), Image.Resampling.LANCZOS))
    assert np.array_equal(np.asarray(pad)[5:15], inner)
    assert np.array_equal(np.asarray(pad)[0], inner[0])
    assert np.array_equal(np.asarray(pad)[-1], inner[-1])
    assert np.array_equal(
        np.asarray(stretch), np.asarray(halves().resize((20, 20), Image.Resampling.LANCZOS))
    )
    for how in ("crop", "pad", "stretch"):
        assert fitted(halves(), (40, 20), how).tobytes() == halves().tobytes()


def test_a_picture_is_extended_by_its_edge() -> None:
    larger = extended(halves(), read_sides("left=3, bottom=2"))
    assert larger.size == (43, 22)
    assert (colour(larger), colour(larger, (42, 21))) == (RED, (0, 0, 255))
    assert extended(Image.new("L", (2, 2), 9), (1, 1, 1, 1)).size == (4, 4)


@pytest.mark.parametrize("text", ["", "64", "left", "left=", "up=3", "left=0", "top=1e3"])
def test_sides_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="left=64,top=32"):
        read_sides(text)
