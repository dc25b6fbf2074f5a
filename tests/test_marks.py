"""What pictures say of their origin: read by Pillow, carried over, the same in every run."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from sdcore import marks
from sdcore.images import marks_of, to_bytes
from sdcore.marks import COMPOSITE, TRAINED
from sdcore.picture_form import Form
from sdcore.settings import Settings
from sdcore.version import VERSION
from tests.cli.shell import Shell
from tests.plain_settings import PLAIN

FORMATS = ["png", "jpeg", "webp"]
SETTINGS = replace(PLAIN, model="/home/somebody/dream & 1.safetensors", version="0.1.0")
PICTURE = Image.new("RGB", (8, 8), "red")


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def said(picture: Image.Image) -> dict[str, str]:
    return marks.read(picture.info.get("xmp", b""))


@pytest.mark.parametrize("format", FORMATS)
def test_every_picture_says_that_a_model_made_it(format: str) -> None:
    data = to_bytes(PICTURE, SETTINGS, Form(format))
    assert {k: v for k, v in said(opened(data)).items() if k != "sdcore"} == {
        "DigitalSourceType": TRAINED,
        "AISystemUsed": "sdcore with dream & 1",
        "AISystemVersionUsed": "0.1.0",
    }
    assert TRAINED.endswith("digitalsourcetype/trainedAlgorithmicMedia")
    assert data == to_bytes(PICTURE, SETTINGS, Form(format))
    unmarked = to_bytes(PICTURE, SETTINGS, Form(format, mark=False))
    assert b"trainedAlgorithmicMedia" not in unmarked
    assert opened(unmarked).tobytes() == opened(data).tobytes()


@pytest.mark.parametrize("format", FORMATS)
def test_pillow_reads_it(format: str) -> None:
    pytest.importorskip("defusedxml")
    xmp = opened(to_bytes(PICTURE, SETTINGS, Form(format))).getxmp()  # type: ignore[attr-defined]
    described = xmp["xmpmeta"]["RDF"]["Description"]
    assert described["DigitalSourceType"] == TRAINED
    assert described["AISystemUsed"] == "sdcore with dream & 1"


def test_a_sheet_is_marked_too() -> None:
    of_sheet = said(opened(to_bytes(PICTURE)))
    assert (of_sheet["DigitalSourceType"], of_sheet["AISystemVersionUsed"]) == (TRAINED, VERSION)


def _photograph() -> Image.Image:
    return PICTURE.copy()


def _marked_photograph() -> Image.Image:
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
        ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        ' xmlns:I="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' I:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture">'
        "<dc:creator><rdf:Seq><rdf:li>Ann</rdf:li><rdf:li>Ben &amp; Co</rdf:li></rdf:Seq>"
        "</dc:creator></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    buffer = io.BytesIO()
    PICTURE.save(buffer, "JPEG", xmp=xmp.encode())
    return opened(buffer.getvalue())


def _of_another_model() -> Image.Image:
    xmp = marks.packet(replace(SETTINGS, model="x")).replace("sdcore with x", "Painter")
    buffer = io.BytesIO()
    PICTURE.save(buffer, "WEBP", xmp=xmp.replace("http://cv", "https://cv").encode())
    return opened(buffer.getvalue())


def _unmarked_of_ours() -> Image.Image:
    return opened(to_bytes(PICTURE, SETTINGS, Form("png", mark=False)))


def _composite_of_ours() -> Image.Image:
    begun = replace(SETTINGS, image="photo.jpg")
    return opened(to_bytes(PICTURE, begun, Form("jpeg", mark=False)))


def _of_another_tool() -> Image.Image:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "red\nSteps: 2, Sampler: Euler, Seed: 1, Size: 8x8")
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG", pnginfo=info)
    return opened(buffer.getvalue())


@pytest.mark.parametrize(
    ("given", "source", "more"),
    [
        (_photograph, COMPOSITE, {}),
        (_marked_photograph, COMPOSITE, {"creator": "Ann, Ben & Co"}),
        (
            _of_another_model,
            TRAINED,
            {
                "AISystemUsed": "Painter; sdcore with picturebook",
                "AISystemVersionUsed": "0.1.0; 0.1.0",
            },
        ),
        (_unmarked_of_ours, TRAINED, {"AISystemVersionUsed": "0.1.0; 0.1.0"}),
        (_composite_of_ours, COMPOSITE, {}),
        (_of_another_tool, TRAINED, {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("format", FORMATS)
def test_what_it_began_with_is_said_and_carried(
    given: Callable[[], Image.Image], source: str, more: dict[str, str], format: str
) -> None:
    settings = replace(
        SETTINGS, model="picturebook", image="a.png", image_marks=marks_of(given())
    )  # fmt: skip
    assert Settings.from_json(settings.to_json()) == settings
    found = said(opened(to_bytes(PICTURE, settings, Form(format))))
    assert found["DigitalSourceType"] == source
    assert {name: found[name] for name in more} == more


@pytest.mark.parametrize(
    "xmp",
    [
        b"",
        b"<x",
        b"\xff\xfe<x/>",
        '<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>',
        "<a>" * 100_000 + "</a>" * 100_000,
        "<x>" + " " * (1 << 21) + "</x>",
    ],
    ids=["none", "half", "utf-16", "entities", "deep", "long"],
)
def test_a_packet_that_is_none_says_nothing(xmp: Any) -> None:
    assert marks.read(xmp) == {}


def test_the_command(shell: Shell) -> None:
    Image.new("RGB", (32, 32), "blue").save("photo.png")
    first = shell.sample("red", "--seed", 1, "--image", "photo.png", "--out", "a.jpg").paths[0]
    with Image.open(first) as picture:
        assert (picture.format, said(picture)["DigitalSourceType"]) == ("JPEG", COMPOSITE)
    # The picture that a model painted over a photograph stays one that began with it.
    over = shell.sample("blue", "--seed", 1, "--image", first, "--format", "webp").paths[0]
    assert over.suffix == ".webp"
    with Image.open(over) as picture:
        assert said(picture)["DigitalSourceType"] == COMPOSITE
    plain = shell.sample("red", "--seed", 1, "--no-mark", "--out", "plain.png").paths[0]
    again = shell("rerun", plain, "--out", "again.png").paths[0]
    with Image.open(plain) as old, Image.open(again) as new:
        assert (said(old), said(new)["DigitalSourceType"]) == ({}, TRAINED)
        assert old.tobytes() == new.tobytes()


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "A.PNG"])
def test_rerun_and_inspect_read_every_format(shell: Shell, name: str) -> None:
    fine = () if name == "A.PNG" else ("--quality", 100)
    drawn = shell.sample("red", "--seed", 1, "--out", name, *fine).paths[0]
    again = shell("rerun", drawn, "--out", f"again{drawn.suffix}", *fine).paths[0]
    assert drawn.read_bytes() == again.read_bytes()
    assert "steps             2" in map(str, shell("inspect", drawn).paths)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--out", "a.jpg", "--format", "webp"), "a.jpg is a file of jpeg, and --format says webp"),
        (("--quality", "90"), "a PNG loses nothing"),
        (("--out", "a.gif"), "pictures are written as PNG, JPEG or WebP: --out a.png"),
        (("--format", "gif"), "'gif' is not one of 'png', 'jpeg', 'webp'"),
    ],
)  # fmt: skip
def test_formats_that_cannot_be(shell: Shell, more: tuple[str, ...], message: str) -> None:
    result = shell.sample("red", *more)
    assert (result.status, result.paths) == (2, [])
    assert message in result.err
