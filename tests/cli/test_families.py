"""What the commands take for some families only."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sdcore.images import read_settings
from tests.cli.shell import pixels

pytest.importorskip("diffusers")
from scripts.families import FAMILIES, pictures

FamilyPath = Callable[[str], Path]


def test_inpainting_and_again(
    command: Callable[..., tuple[int, Path, str]], family_path: FamilyPath
) -> None:
    for name, picture in pictures(FAMILIES["SD 1.x inpainting"]).items():
        picture.crop((0, 0, 48, 64)).save(f"{name}.png")
    drawn = ("sample", "red", "--model", family_path("SD 1.x inpainting"), "--seed", 1)
    over = ("--image", "image.png", "--mask", "mask.png", "--device", "cpu", "--steps", 2)
    _, path, _ = command(*drawn, *over)
    settings = read_settings(path)
    assert (settings.image, settings.mask) == ("image.png", "mask.png")
    assert (settings.width, settings.height) == (48, 64)
    status, again, err = command("rerun", path)
    assert status == 0
    assert again.read_bytes() == path.read_bytes()
    assert "changed" not in err

    Image.new("RGB", (48, 64)).save("image.png")
    _, other, err = command("rerun", path)
    assert "the image or the mask has changed since" in err
    assert other.read_bytes() != path.read_bytes()
    _, other, err = command("rerun", path, "--model", family_path("SD 1.x"))
    assert "changed since" in err
    assert read_settings(other).image == "image.png"

    Image.new("L", (40, 64)).save("mask.png")
    status, _, err = command(*drawn, *over)
    assert (status, err) == (2, "sdcore: the mask has 40x64 pixels and the picture 48x64\n")
    status, _, err = command(*drawn, "--device", "cpu")
    assert status == 2
    assert "repaints a given picture: give it an image and a mask" in err


def test_sdxl_and_its_refiner_and_again(
    command: Callable[..., tuple[int, Path, str]], family_path: FamilyPath
) -> None:
    drawn = ("sample", "red", "--model", family_path("SDXL"), "--seed", 1, "--device", "cpu")
    told = ("--original-size", "96x80", "--crop", "8,16", "--aesthetic-score", 7)
    refined = ("--refiner", family_path("SDXL refiner"), "--handover", 1.5, "--steps", 3)
    _, path, _ = command(*drawn, *told, *refined)
    settings = read_settings(path)
    assert (settings.original_size, settings.crop) == ((96, 80), (8, 16))
    assert (settings.target_size, settings.aesthetic_score) == ((64, 64), 7.0)
    assert (settings.refiner, settings.handover) == (str(family_path("SDXL refiner")), 1.5)
    assert command("rerun", path)[1].read_bytes() == path.read_bytes()
    command(*drawn, *told, *refined, "--state", "run.safetensors", "--stop-after", 1)
    status, rest, err = command("resume", "run.safetensors", "--out", "rest")
    assert (status, pixels(rest) == pixels(path)) == (0, True), err
    # What another model is not told is left out, and with it the refiner.
    other = read_settings(command("rerun", path, "--model", family_path("SD 1.x"))[1])
    assert (other.original_size, other.refiner, other.handover) == (None, None, None)


def test_what_is_drawn_with_unless_told(
    command: Callable[..., tuple[int, Path, str]], family_path: FamilyPath
) -> None:
    turbo = ("sample", "red", "--model", family_path("SD-Turbo"), "--seed", 1, "--device", "cpu")
    size = ("--width", 64, "--height", 64)
    _, path, err = command(*turbo, *size)
    assert "draws with 4 steps and cfg 1 unless told" in err
    assert (read_settings(path).steps, read_settings(path).cfg) == (4, 1.0)
    assert "unless told" not in command("rerun", path)[2]
    _, path, err = command(*turbo, *size, "--steps", 1, "--cfg", 1, "--prediction", "v")
    assert "unless told" not in err
    assert read_settings(path).prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--crop", "8x8"), "--crop is written like 0,0, not '8x8'"),
        (("--original-size", "big"), "--original-size is written like 1024x768, not 'big'"),
        (("--crop", "8,8"), "crop is nothing that this model is told: leave it out"),
        (("--prediction", "w"), "unknown prediction type 'w'"),
        (("--handover", "2"), "a hand-over needs a refiner to hand over to"),
    ],
)
def test_one_line_for_what_is_wrong(
    command: Callable[..., tuple[int, Path, str]],
    tiny_path: Path,
    options: tuple[str, ...],
    message: str,
) -> None:
    status, path, err = command("sample", "red", "--model", tiny_path, "--seed", 1, *options)
    assert (status, path, err.count("\n")) == (2, None, 1)
    assert message in err
