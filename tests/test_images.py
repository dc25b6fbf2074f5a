"""Tensors to pictures, and the settings that travel inside them."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdcore.a1111 import parameters
from sdcore.errors import InputError
from sdcore.images import (
    KEY,
    check_form,
    open_picture,
    read_settings,
    save_png,
    texts_of,
    to_bytes,
    to_pictures,
    to_tensor,
)
from sdcore.picture_form import Form
from sdcore.settings import Settings
from tests.plain_settings import PLAIN

SETTINGS = replace(
    PLAIN,
    prompt='a "red" house, ünïcödé\nat sunset',
    negative="blurry",
    seed=0,
    scheduler="dpmpp_2m",
    spacing="karras",
    eta=0.0,
    width=16,
    height=8,
    version="0.1.0",
)


def test_values_become_bytes() -> None:
    values = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0, 0.5])
    picture = to_pictures(values.view(1, 1, 1, 6).expand(1, 3, 2, 6))[0]
    assert picture.size == (6, 2)
    assert [picture.getpixel((x, 0))[0] for x in range(6)] == [0, 0, 128, 255, 255, 191]


def test_pictures_survive_the_way_through_a_tensor() -> None:
    pixels = torch.randint(0, 256, (1, 3, 7, 9), generator=torch.Generator().manual_seed(0))
    picture = to_pictures(pixels / 127.5 - 1)[0]
    back = to_tensor(picture)
    assert back.shape == (1, 3, 7, 9)
    assert torch.equal(((back + 1) * 127.5).round().long(), pixels)
    assert to_pictures(back)[0].tobytes() == picture.tobytes()


def test_settings_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_png(Image.new("RGB", (16, 8)), path, SETTINGS)
    assert read_settings(path) == SETTINGS
    with Image.open(path) as picture:
        lines = picture.text["parameters"].split("\n")  # type: ignore[attr-defined]
    assert lines[:3] == ['a "red" house, ünïcödé', "at sunset", "Negative prompt: blurry"]
    assert lines[3] == (
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 0, "
        "Size: 16x8, Model: picturebook, RNG: CPU, Version: sdcore 0.1.0"
    )


def test_parameters_quote_what_would_split() -> None:
    text = parameters(replace(SETTINGS, model="a, b: c", negative=""))
    assert 'Model: "a, b: c"' in text
    assert "Negative" not in text


def test_later_fields_are_left_out() -> None:
    text = SETTINGS.to_json()[:-1] + ', "later": 1}'
    assert Settings.from_json(text) == SETTINGS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "garbled"),
        ("[]", "garbled"),
        ("{}", "lack 'scheduler'"),
        (SETTINGS.to_json().replace('"steps": 20', '"steps": "many"'), "steps is 'many'"),
        (SETTINGS.to_json().replace('"steps": 20', '"steps": true'), "steps is True"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, text: str, message: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(KEY, text)
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    with pytest.raises(InputError, match=message):
        read_settings(path)


def test_pictures_without_settings(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(InputError, match="is missing"):
        read_settings(path)
    path.write_text("no picture")
    with pytest.raises(InputError, match="no picture"):
        read_settings(path)
    save_png(Image.new("RGB", (8, 8)), path)
    with pytest.raises(InputError, match="holds no sdcore settings"):
        read_settings(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError):
        read_settings(path)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n(x) print\nshowpage\n"


@pytest.mark.parametrize("opener", [open_picture, read_settings])
def test_no_program_is_started_on_a_picture(
    opener: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("Ghostscript ran"))
    path = tmp_path / "x.png"
    path.write_bytes(POSTSCRIPT)
    with pytest.raises(InputError, match="is no picture"):
        opener(path)


def test_settings_are_read_from_what_is_written_only(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (8, 8)).save(path, "GIF")
    assert open_picture(path).size == (8, 8)
    with pytest.raises(InputError, match=r"is no picture \(PNG, JPEG, WEBP\)"):
        read_settings(path)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_settings_come_back_from_every_format(tmp_path: Path, format: str) -> None:
    form = Form(format)
    path = tmp_path / f"a{form.suffix}"
    path.write_bytes(to_bytes(Image.new("RGB", (16, 8)), SETTINGS, form))
    assert read_settings(path) == SETTINGS
    assert texts_of(path)["parameters"] == parameters(SETTINGS)
    with Image.open(path) as picture:
        assert picture.format == format.upper()

    path.write_bytes(to_bytes(Image.new("RGB", (16, 8)), SETTINGS, Form(format, whole=False)))
    assert texts_of(path)["parameters"] == parameters(SETTINGS)
    with pytest.raises(InputError, match="holds no sdcore settings"):
        read_settings(path)


def test_what_is_lost_and_what_is_not() -> None:
    pixels = torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(pixels.to(torch.uint8).numpy())
    back = {
        (form.format, form.quality): Image.open(io.BytesIO(to_bytes(picture, SETTINGS, form)))
        for form in (Form("webp", 100), Form("webp"), Form("jpeg", 30), Form("jpeg"))
    }
    same = [each.convert("RGB").tobytes() == picture.tobytes() for each in back.values()]
    assert same == [True, False, False, False]
    rough, fine = (
        (torch.from_numpy(np.array(back[key])).int() - pixels).abs().float().mean()
        for key in (("jpeg", 30), ("jpeg", None))
    )
    assert fine < rough


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"format": "gif"}, "unknown format 'gif': known are jpeg, png, webp"),
        ({"quality": 90}, "a PNG loses nothing"),
        ({"format": "jpeg", "quality": 0}, "quality is 1 to 100, not 0"),
    ],
)
def test_forms_that_are_none(form: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Form(**form)


def test_settings_that_no_jpeg_has_room_for() -> None:
    long = replace(SETTINGS, prompt="house " * 12_000)
    for words in (long, replace(long, prompt="house " * 6_000)):  # in the packet, in the Exif
        with pytest.raises(InputError, match=r"a JPEG has room for 65,5..: take another --format"):
            check_form(words, Form("jpeg"))
    for format in ("png", "webp"):
        check_form(long, Form(format))


@pytest.mark.parametrize("size", [(8193, 8192), (20000, 20000)])
def test_a_picture_of_too_many_pixels_is_not_unpacked(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "x.png"
    Image.new("L", (8, 8)).save(path)
    raw = bytearray(path.read_bytes())
    raw[16:24] = struct.pack(">II", *size)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    path.write_bytes(raw)
    with pytest.raises(InputError, match="pixels"):
        open_picture(path)


def test_only_files_are_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no file"):
        open_picture(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is no file"):
        open_picture(tmp_path / "pipe")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        SETTINGS.to_json().replace('"seed": 0', f'"seed": 1{"0" * 5000}'),
        SETTINGS.to_json().replace('"cfg": 7.5', f'"cfg": 1{"0" * 400}'),
        SETTINGS.to_json().replace('"prompt": "', '"prompt": "\\ud800'),
        SETTINGS.to_json().replace('"model": "', '"model": "a\\u0000'),
        SETTINGS.to_json().replace('"seed": 0', '"seed": 0, "seed": 4'),
    ],
)
def test_settings_that_are_none_are_one_line(text: str) -> None:
    assert text != SETTINGS.to_json()
    with pytest.raises(InputError, match="garbled"):
        Settings.from_json(text)
