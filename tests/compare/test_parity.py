"""`sdcore parity`: small random models beside diffusers, and what it says when they differ."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from sdcore.checkpoints import open_model
from sdcore.checkpoints.convert import convert
from sdcore.cli import main
from sdcore.compare import by_diffusers, parity
from sdcore.errors import InputError

Command = Callable[..., tuple[int, str, str]]
UNET = ("UNet, t = 1", "UNet, t = 500.5", "UNet, t = 999")
COMPONENTS = {"text", "text, negative", *UNET}
COMPONENTS |= {"VAE encode, mean", "VAE encode, std", "VAE decode"}
POOLED = {"pooled text", "pooled text, negative"}


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `sdcore parity`: status, stdout, stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["parity", *(str(a) for a in args)])
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capfd.readouterr()

    return run


def test_the_table(command: Command, tiny_path: Path) -> None:
    pytest.importorskip("diffusers")
    status, out, err = command("--model", tiny_path, "--steps", 4)
    assert (status, err) == (0, "")
    rows = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| ")]
    assert set(rows) == COMPONENTS | {
        "component",
        "latents after 4 steps",
        "picture of 32 x 32, of 255",
    }


def test_a_model_with_steps_of_its_own(command: Command, tiny_path: Path, tmp_path: Path) -> None:
    """In a key that diffusers passes over: what is compared are the steps that both read."""
    pytest.importorskip("diffusers")
    folder = tmp_path / "own"
    shutil.copytree(tiny_path, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | {"timestep_spacing": "leading", "_spacing": "trailing"}
    path.write_text(json.dumps(config))
    status, out, err = command("--model", folder, "--steps", 4)
    assert (status, err) == (0, ""), out


@pytest.mark.parametrize(
    ("name", "pipeline", "pooled"),
    [
        ("SD 2.x v", "StableDiffusionPipeline", set()),
        ("SD 1.x inpainting", "StableDiffusionInpaintPipeline", set()),
        ("LCM", "LatentConsistencyModelPipeline", set()),
        ("SDXL", "StableDiffusionXLPipeline", POOLED),
        ("SDXL refiner", "StableDiffusionXLImg2ImgPipeline", POOLED),
    ],
)
def test_families(
    command: Command, family_path: Callable[[str], Path], name: str, pipeline: str, pooled: set[str]
) -> None:
    pytest.importorskip("diffusers")
    folder = family_path(name)
    status, out, _ = command("--model", folder, "--steps", 3, "--size", 64, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["beyond"] == []
    assert (found["run"]["pipeline"], found["run"]["steps"]) == (pipeline, 3)
    assert found["components"].keys() == COMPONENTS | pooled
    assert all(gap["relative"] <= 1e-5 for gap in found["components"].values())
    assert found["latents"]["relative"] <= 1e-5
    assert found["picture"] <= 1


def test_a_single_file(family_path: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    folder, file = family_path("SD 1.x"), tmp_path / "model.safetensors"
    convert(open_model(folder), file)
    (tmp_path / "tokenizer").symlink_to(folder / "tokenizer")
    found = parity.compare(file, steps=2)
    assert not found.beyond
    assert found == parity.compare(folder, steps=2)


def test_float16_files_and_a_judge_that_is_not_there(broken_path: Path) -> None:
    pytest.importorskip("diffusers")
    for path in broken_path.rglob("*.safetensors"):
        half = {key: tensor.half() for key, tensor in load_file(path).items()}
        save_file(half, path.with_suffix(".fp16.safetensors"), {"format": "pt"})
        path.unlink()
    index = broken_path / "model_index.json"
    judge = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    index.write_text(json.dumps(json.loads(index.read_text()) | judge))
    assert not parity.compare(broken_path, steps=1).beyond
    index.write_text("{}")  # diffusers cannot open this folder; it is written anew
    assert not parity.compare(broken_path, steps=1).beyond


def test_what_differs_is_named(
    command: Command, tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    right = by_diffusers.their_unet
    monkeypatch.setattr(by_diffusers, "their_unet", lambda *a: right(*a) * 1.0001)
    status, out, err = command("--model", tiny_path, "--steps", 1)
    assert status == 1
    assert "| UNet, t = 999 |" in out
    assert err == f"sdcore: outside the limits: {'; '.join(UNET)}\n"


def test_without_diffusers(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "find_spec", lambda name: None if name == "diffusers" else name)
    status, out, err = command()
    assert (status, out) == (2, "")
    assert err == (
        "sdcore: diffusers is not installed, and parity is a comparison with it: "
        "pip install diffusers\n"
    )


def test_a_size_that_is_none(tiny_path: Path) -> None:
    with pytest.raises(InputError, match="a multiple of 8 pixels"):
        parity.ask(open_model(tiny_path), side=30)
