"""Starting from a picture: image to image, inpainting, outpainting, on every model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sdcore.errors import InputError
from sdcore.images import read_settings, to_tensor
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion

pytest.importorskip("diffusers")
import diffusers

from scripts import starts
from scripts.starts import mask, picture


@pytest.fixture(scope="module")
def models(family_path: Callable[[str], Path]) -> tuple[StableDiffusion, Any, Any]:
    diffusers.logging.set_verbosity_error()
    return starts.pipelines(family_path(starts.FAMILY))


@pytest.fixture(scope="module")
def sd(models: tuple[StableDiffusion, Any, Any]) -> StableDiffusion:
    return models[0]


HOW: dict[str, Any] = {"steps": 4, "cfg": 1.0, "scheduler": "euler_a"}


def last(run) -> torch.Tensor:
    with torch.inference_mode():
        *_, step = run
    return step.x_next * run.end_scale


@pytest.mark.parametrize("name", ["ddim", "euler_a", "heun", "dpmpp_2m"])
def test_as_diffusers_pipelines(
    models: tuple[StableDiffusion, Any, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every scheduler and strength: docs/starts.md."""
    monkeypatch.setattr(starts, "STRENGTHS", (0.6, 1.0))
    monkeypatch.setattr(starts, "STEPS", 5)
    assert max(starts.errors(name, models)) <= 1e-5


def test_the_noise_of_what_is_kept_at_a_midpoint(
    models: tuple[StableDiffusion, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers' DPM2 gives it that of the step's end; with that of the midpoint it is as here."""
    monkeypatch.setattr(starts, "STRENGTHS", (0.6,))
    monkeypatch.setattr(starts, "STEPS", 5)
    kind = diffusers.KDPM2DiscreteScheduler
    plain = kind.add_noise

    def mended(self, x, noise, t):
        if self.step_index is not None and not self.state_in_first_order:
            return x + noise * self.sigmas_interpol[self.step_index]
        return plain(self, x, noise, t)

    images, wrong = starts.errors("dpm2", models)
    monkeypatch.setattr(kind, "add_noise", mended)
    _, right = starts.errors("dpm2", models)
    assert max(images, right) <= 1e-5
    assert wrong > 1e-2


def test_where_it_starts(sd: StableDiffusion) -> None:
    whole = sd.prepare("red", **HOW)
    by_strength = sd.prepare("red", image=picture(), strength=0.5, **HOW)
    by_step = sd.prepare("red", image=picture(), start_step=2, **HOW)
    assert (len(by_strength), by_strength.start.index) == (2, 2)
    assert torch.equal(by_strength.start.x, by_step.start.x)
    sigma = whole.sigmas[1] * 0.9
    between = sd.prepare("red", image=picture(), start_sigma=sigma, **HOW)
    assert between.sigmas == (sigma, *whole.sigmas[2:])
    assert len(between) == 3
    at_level = sd.prepare("red", image=picture(), start_sigma=whole.sigmas[2], **HOW)
    assert torch.equal(last(at_level), last(by_strength))
    usual = sd.prepare("red", image=picture(), steps=10)
    assert (usual.settings[0].strength, len(usual)) == (0.8, 8)


def test_the_likeliest_latents(sd: StableDiffusion) -> None:
    run = sd.prepare("red", image=picture(), strength=0.5, posterior="mode", **HOW)
    code = sd.vae.encode(to_tensor(picture()))
    assert torch.equal(run.start.x, code.mean + run.sigmas[2] * run.noise.start())
    with pytest.raises(InputError, match="unknown posterior 'mean': known are mode, sample"):
        sd.prepare("red", image=picture(), posterior="mean")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"strength": 0.05}, "a strength of 0.05 leaves none of 4 steps: at least 0.25"),
        ({"strength": 0.0}, "strength 0 is out of range"),
        ({"strength": 1.5}, "strength 1.5 is out of range"),
        ({"strength": float("nan")}, "strength nan is out of range"),
        ({"start_step": 4}, "start_step 4 leaves no step of 4: 0 to 3"),
        ({"start_sigma": 1e9}, "start_sigma 1e+09 is out of range"),
        ({"start_sigma": 0.0}, "start_sigma 0 is out of range"),
        ({"strength": 0.5, "start_step": 1}, "--strength and --start-step both say"),
        ({"strength": 0.5, "image": None}, "--strength is for starting from a picture"),
        ({"fit": "cover"}, "unknown fit 'cover'"),
        ({"paste": True}, "paste is for a picture with a mask"),
        ({"extend": "left=x"}, "cannot read where to extend"),
        ({"extend": "left=9000,top=9000"}, "makes a picture of 9064x9064: 8192 pixels a side"),
        ({"mask": Image.new("L", (8, 8))}, "the mask has 8x8 pixels and the picture 64x64"),
        ({"mask": mask(), "mask_blur": -1.0}, "mask_blur -1 is out of range"),
    ],
)
def test_what_cannot_be_started(sd: StableDiffusion, how: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        sd.prepare("red", **{"image": picture(), **HOW, **how})
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["euler", "euler_a", "dpmpp_2m", "unipc", "dpmpp_sde", "lms"])
def test_what_is_black_is_kept(sd: StableDiffusion, name: str) -> None:
    """By any solver, noisy ones too, x ends at the picture's own latents there."""
    how = HOW | {"scheduler": name}
    run = sd.prepare("red", image=picture(), mask=mask(), **how)
    ended, kept = last(run), run.kept
    assert kept is not None
    black = kept.share == 0
    assert 0 < black.float().mean() < 1
    assert ((ended - kept.latents) * black).abs().max() <= 1e-4
    assert torch.equal(kept.over(ended) * black, kept.latents * black)
    assert ((ended - kept.latents) * ~black).abs().max() > 0.1


def test_a_white_mask_keeps_nothing(sd: StableDiffusion) -> None:
    all_of_it = sd.prepare("red", image=picture(), mask=Image.new("L", (64, 64), 255), **HOW)
    plain = sd.prepare("red", width=64, height=64, **HOW)
    noise = replace(plain, noise=all_of_it.noise, start=all_of_it.start)
    assert torch.equal(last(all_of_it), last(noise))


def test_what_is_kept_does_not_depend_on_the_batch(sd: StableDiffusion) -> None:
    asked: dict[str, Any] = {"image": picture(), "mask": mask(), "mask_blur": 3.0}
    both = sd.prepare("red", seeds=[1, 2], strength=0.6, **asked, **HOW)
    alone = sd.prepare("red", seeds=[2], strength=0.6, **asked, **HOW)
    assert torch.equal(last(both)[1:], last(alone))
    assert torch.equal(last(both.split(1)[1]), last(alone))


def test_soft_edges_are_shares(sd: StableDiffusion) -> None:
    hard = sd.prepare("red", image=picture(), mask=mask(), **HOW).kept
    soft = sd.prepare("red", image=picture(), mask=mask(), mask_blur=6.0, **HOW).kept
    assert hard is not None
    assert soft is not None
    assert set(hard.share.unique().tolist()) == {0.0, 1.0}
    assert len(soft.share.unique()) > 10
    assert 0 <= soft.share.min() < soft.share.max() <= 1


def test_pixels_are_put_back(sd: StableDiffusion) -> None:
    run = sd.prepare("red", image=picture(), mask=mask(), paste=True, **HOW)
    with torch.inference_mode():
        *_, step = run
        drawn = run.decode(step.x_next)[0]
    left = (0, 0, 28, 64)
    assert drawn.crop(left).tobytes() == picture().crop(left).tobytes()
    assert drawn.crop((28, 12, 64, 64)).tobytes() != picture().crop((28, 12, 64, 64)).tobytes()


def test_outpainting(sd: StableDiffusion) -> None:
    run = sd.prepare("red", image=picture(), extend="left=16,top=8", paste=True, **HOW)
    settings = run.settings[0]
    assert (settings.width, settings.height) == (80, 72)
    with torch.inference_mode():
        *_, step = run
        drawn = run.decode(step.x_next)[0]
    assert drawn.crop((16, 8, 80, 72)).tobytes() == picture().tobytes()


def test_an_inpainting_model_starts_from_the_picture_too(
    family_path: Callable[[str], Path],
) -> None:
    folder = family_path("SD 1.x inpainting")
    pipe = diffusers.StableDiffusionInpaintPipeline.from_pretrained(folder)
    expected = starts.theirs(pipe, "euler", 0.6, mask())
    ours = starts.ours(load(folder, device="cpu"), "euler", 0.6, mask())
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_on_the_command_line_and_again(tmp_path: Path, tiny_path: Path, command) -> None:
    picture().save(tmp_path / "boat.png")
    asked = ("sample", "red", "--model", tiny_path, "--seed", 1, "--device", "cpu", "--steps", 10)
    status, path, err = command(*asked, "--image", "boat.png", "--strength", 0.6)
    assert (status, "6 of 10 steps" in err) == (0, True)
    settings = read_settings(path)
    assert (settings.image, settings.strength, settings.width) == ("boat.png", 0.6, 64)
    assert command("rerun", path)[1].read_bytes() == path.read_bytes()
    # Another way to say where it starts takes the place of the old one.
    status, other, _ = command("rerun", path, "--start-step", 4)
    assert status == 0
    assert Image.open(other).tobytes() == Image.open(path).tobytes()
    status, _, err = command(*asked, "--image", "boat.png", "--strength", 0.05)
    assert status == 2
    assert err.startswith("sdcore: a strength of 0.05 leaves none of 10 steps: at least 0.1")
    assert err.count("\n") == 1
    status, small, _ = command(*asked, "--image", "boat.png", "--width", 32, "--height", 64)
    assert (status, Image.open(small).size) == (0, (32, 64))
    assert read_settings(small).fit == "crop"
    picture().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "boat.png")
    assert "the image or the mask has changed since" in command("rerun", path)[2]
