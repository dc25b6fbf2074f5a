"""The word in the pixels: it is there, it is recorded, and nothing else changes a picture."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdcore.errors import InputError
from sdcore.images import read_settings
from sdcore.watermark import check_watermark, read_watermark, watermarked
from tests.cli.shell import Shell, pixels


def smooth(seed: int = 0) -> Image.Image:
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(60, 200, (6, 6, 3), np.uint8))
    return small.resize((320, 256), Image.Resampling.BICUBIC)


def test_the_word_is_there_and_hardly_seen() -> None:
    pytest.importorskip("imwatermark")
    pictures = [smooth(seed) for seed in range(3)]
    first, again = watermarked(pictures, "sdcore"), watermarked(pictures[:1], "sdcore")
    assert first[0].tobytes() == again[0].tobytes()
    for old, new in zip(pictures, first, strict=True):
        assert new.size == old.size
        assert read_watermark(new, 6) == "sdcore"
        assert read_watermark(old, 6) != "sdcore"
        change = np.abs(np.asarray(new, int) - np.asarray(old, int))
        assert change.max() > 0
        assert change.mean() < 6
    for quality in (95, 85):
        buffer = io.BytesIO()
        first[0].save(buffer, "JPEG", quality=quality)
        assert read_watermark(Image.open(buffer), 6) == "sdcore"


def test_the_way_of_diffusers_loses_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imwatermark")
    monkeypatch.setattr("sdcore.watermark.METHOD", "dwtDct")
    (marked,) = watermarked([smooth()], "sdcore")
    assert read_watermark(marked, 6) != "sdcore"


def test_a_picture_says_so_and_is_drawn_again(shell: Shell) -> None:
    pytest.importorskip("imwatermark")
    size = ("--width", 256, "--height", 256, "--seed", 1)
    plain = shell.sample("red", *size, "--out", "plain.png").paths[0]
    drawn = shell.sample("red", *size, "--out", "a.png", "--watermark", "sdcore").paths[0]
    assert read_settings(drawn).watermark == "sdcore"
    assert pixels(drawn) != pixels(plain)
    again = shell("rerun", drawn, "--out", "again.png").paths[0]
    assert again.read_bytes() == drawn.read_bytes()


@pytest.mark.parametrize("word", ["", "x" * 9, "rötlich", "a\n"])
def test_words_that_are_none(word: str) -> None:
    with pytest.raises(InputError, match="a watermark is 1 to 8 letters of ASCII"):
        check_watermark(word, 512, 512)


def test_what_has_no_room(shell: Shell) -> None:
    result = shell.sample("red", "--watermark", "sdcore")
    assert (result.status, result.paths) == (2, [])
    assert "a watermark needs at least 65,536 pixels, as 256x256, and 32x32 are 1,024" in result.err
    assert not Path("out").exists()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imwatermark", None)
    with pytest.raises(InputError, match=r"pip install 'sdcore\[watermark\]'"):
        check_watermark("sdcore", 512, 512)
