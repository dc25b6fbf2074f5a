"""The second pass: equal to both passes by hand, whichever way one goes through it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import sdcore
from sdcore.errors import InputError
from sdcore.guidance import CFG
from sdcore.hires import LATENT, upscaled
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion
from sdcore.sampling import Denoise, Prediction, State
from sdcore.schedulers import resolve

HOW: dict[str, Any] = {"seeds": [1, 2], "steps": 3, "scheduler": "euler_a"}
TWO: dict[str, Any] = {"hires": 1.5, "hires_strength": 0.6, "hires_steps": 5}


@pytest.fixture(scope="module")
def sd(tiny_path: Path) -> StableDiffusion:
    return load(tiny_path, device="cpu", engine="plain")


def last(run: sdcore.Run) -> torch.Tensor:
    return [step.x_next for step in run][-1]


@pytest.mark.parametrize("upscaler", [None, *LATENT])
@torch.inference_mode()
def test_by_hand_through_the_latents(sd: StableDiffusion, upscaler: str | None) -> None:
    run = sd.prepare("red", **HOW, **TWO, hires_upscaler=upscaler)
    latents = last(sd.prepare("red", **HOW))
    large = upscaled(latents, (6, 6), upscaler or "bilinear")
    plain = LATENT[upscaler or "bilinear"]
    assert torch.equal(large[1:], F.interpolate(latents[1:], size=(6, 6), **plain))
    by_hand = sd.prepare("red", **(HOW | {"steps": 5}), width=48, height=48)
    x = large + by_hand.sigmas[2] * by_hand.noise.start()  # of 5 steps the last int(5 * 0.6)
    wanted = last(replace(by_hand, start=State(x, 2)))
    assert torch.equal(last(run), wanted)
    assert torch.equal(torch.cat([last(part) for part in run.split(1)]), wanted)
    assert [each.size for each in run.decode(wanted)] == [(48, 48)] * 2


@pytest.mark.parametrize("posterior", ["sample", "mode"])
@torch.inference_mode()
def test_by_hand_through_the_pixels(sd: StableDiffusion, posterior: str) -> None:
    more = {"posterior": posterior}
    run = sd.prepare("red", **HOW, **TWO, **more, hires_upscaler="lanczos", hires_scheduler="ddpm")
    first = sd.prepare("red", **HOW)
    large = [
        picture.resize((48, 48), Image.Resampling.LANCZOS) for picture in first.decode(last(first))
    ]
    options = {**more, "steps": 5, "scheduler": "ddpm", "strength": 0.6}
    by_hand = [sd.prepare("red", seeds=seed, image=picture, **options)
               for seed, picture in zip(HOW["seeds"], large, strict=True)]  # fmt: skip
    assert torch.equal(last(run), torch.cat([last(each) for each in by_hand]))


@torch.inference_mode()
def test_counted_and_gone_on_with(sd: StableDiffusion, tmp_path: Path) -> None:
    """From every state of either pass, and of the moment between them."""
    run = sd.prepare("red", **HOW, **TWO, cfg=5, hires_cfg=1, hires_scheduler="dpmpp_2m")
    steps = list(run)
    assert len(run) == len(steps) == 3 + 3
    assert run.nfe == sum(step.nfe for step in steps) == 3 * 2 + 3
    for step in steps:
        step.state.save(tmp_path / "state.safetensors")
        rest = run.resumed(State.load(tmp_path / "state.safetensors"))
        if step is not steps[-1]:
            assert torch.equal(last(rest), steps[-1].x_next)
            assert torch.equal([*run.steps(step.state)][-1].x_next, steps[-1].x_next)
    assert "1.5 times" in repr(run)


def weaker(denoise: Denoise) -> Denoise:
    return lambda x, sigma: Prediction((p := denoise(x, sigma)).x0 * 0.5, p.eps, p.branches)


@pytest.mark.parametrize(
    "change",
    [
        lambda run: replace(run, guidance=CFG(3.0)),
        lambda run: replace(run, solver=resolve("heun").solver),
        lambda run: replace(run, around=weaker),
    ],
)
@torch.inference_mode()
def test_what_is_put_in_is_honoured_by_both(
    sd: StableDiffusion, change: Callable[[sdcore.Run], sdcore.Run]
) -> None:
    run = change(sd.prepare("red", **HOW, **TWO))
    latents = last(change(sd.prepare("red", **HOW)))
    by_hand = change(sd.prepare("red", **(HOW | {"steps": 5}), width=48, height=48))
    x = upscaled(latents, (6, 6), "bilinear") + by_hand.sigmas[2] * by_hand.noise.start()
    assert torch.equal(last(run), last(replace(by_hand, start=State(x, 2))))
    assert run.nfe == sum(step.nfe for step in run)
    assert {each.scheduler for each in run.second(latents).settings} == {run.settings[0].scheduler}


def test_its_settings(sd: StableDiffusion) -> None:
    plain = sd.prepare("red", **HOW).settings
    assert sd.prepare("red", **HOW, hires=1, hires_steps=3).settings == plain
    said = sd.prepare("red", **HOW, hires=2, hires_scheduler="DPM++ 2M Karras").settings[0]
    assert (said.hires, said.hires_upscaler, said.hires_strength) == (2, "bilinear", 0.7)
    assert (said.hires_steps, said.hires_cfg) == (None, None)
    assert (said.hires_scheduler, said.hires_spacing) == ("dpmpp_2m", "a1111:karras")
    listed = sd.prepare("red", **HOW, hires=2, hires_spacing="sigmas:9,3,1,0.5,0").settings[0]
    assert (listed.steps, listed.hires_steps, listed.hires_scheduler) == (3, 4, None)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"hires_steps": 3}, "--hires-steps is for a second pass"),
        ({"hires": 0.5}, "at least 1"),
        ({"hires": float("nan")}, "at least 1"),
        ({"hires": 1.01}, "leaves 32x32 as it is"),
        ({"hires": 1e6}, "8192 pixels at most"),
        ({"hires": 2, "hires_strength": 1.5}, "hires_strength 1.5 is out of range"),
        ({"hires": 2, "hires_strength": 0.1, "hires_steps": 4}, "leaves none of 4 steps"),
        ({"hires": 2, "hires_upscaler": "bilinaer"}, "did you mean bilinear"),
        ({"hires": 2, "hires_scheduler": "eulr"}, "did you mean euler"),
        ({"hires": 2, "image": Image.new("RGB", (32, 32)), "extend": "left=8"}, "leave out mask"),
    ],
)
def test_what_cannot_be(sd: StableDiffusion, options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError) as caught:
        sd.prepare("red", **HOW, **options)
    assert why in str(caught.value)


@torch.inference_mode()
def test_after_a_picture(sd: StableDiffusion) -> None:
    """The first pass may itself begin at a picture."""
    picture = Image.new("RGB", (32, 32), "red")
    options = {**HOW, "image": picture, "strength": 0.7}
    run = sd.prepare("red", **options, **TWO)
    first = last(sd.prepare("red", **options))
    assert torch.equal([step.x_next for step in run][1], first)
    assert torch.equal(last(run), last(run.second(first)))
