"""Settings are enough: a run that is prepared by them alone gives the same latents to the bit."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import sdcore
from sdcore.complete import complete
from sdcore.guidance import CFG
from sdcore.loading import load
from sdcore.picture_options import Options
from sdcore.pipeline import StableDiffusion
from sdcore.prepare import prepare
from sdcore.request import Request, parts_of
from sdcore.settings import Settings, inherited
from sdcore.version import VERSION


@pytest.fixture(scope="module")
def sd(tiny_path: Path) -> StableDiffusion:
    return load(tiny_path, device="cpu")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A picture and a mask, as files."""
    folder = tmp_path_factory.mktemp("given")
    pixels = torch.arange(40 * 56 * 3).remainder(251).byte().reshape(40, 56, 3).numpy()
    Image.fromarray(pixels).save(folder / "image.png")
    mask = Image.new("L", (56, 40))
    mask.paste(255, (0, 0, 28, 40))
    mask.save(folder / "mask.png")
    return {name: str(folder / f"{name}.png") for name in ("image", "mask")}


def last(run: sdcore.Run) -> torch.Tensor:
    with torch.inference_mode():
        return [step.x_next for step in run][-1] * run.end_scale


WAYS: dict[str, dict[str, Any]] = {
    "nothing said": {},
    "a solver with options": {"scheduler": "heun_churn:s_churn=3", "spacing": "karras"},
    "another tool's": {"scheduler": "comfyui:dpm_2", "spacing": "a1111:karras"},
    "noise along one path": {"scheduler": "dpmpp_sde", "noise": "brownian"},
    "a list": {"scheduler": "euler", "spacing": "sigmas:9,3,1,0"},
    "a tail": {"scheduler": "dpmpp_2m", "tail": 0.05, "eta": None},
    "half an eta": {"scheduler": "ddim", "eta": 0.5, "cfg": 0},
    "a guidance": {"guidance": "apg+interval:low=0.3,high=8", "cfg": 5},
    "an object that can be written": {"guidance": CFG(3.25)},
    "words that change": {"prompts": ["[red:blue:1] (boat:1.3)", "a AND b"], "grammar": "a1111"},
    "an earlier layer": {"clip_skip": 2, "negative": "grey"},
    "FreeU": {"freeu": "1.5,1.6,0.9,0.2"},
    "time saved": {"lossy": "deepcache:every=2,near=1+tome+bf16"},
    "a size": {"width": 48, "height": 24},
    "what the UNet says": {"prediction_type": "v_prediction"},
}


def check(sd: StableDiffusion, run: sdcore.Run) -> None:
    read = [Settings.from_json(each.to_json()) for each in run.settings]
    assert tuple(read) == run.settings
    again = prepare(sd, read)
    assert again.settings == run.settings
    assert again.sigmas == run.sigmas
    assert again.warnings == run.warnings
    assert torch.equal(last(again), last(run))


@pytest.mark.parametrize("way", WAYS)
def test_by_settings_alone(sd: StableDiffusion, way: str) -> None:
    check(sd, sd.prepare(**{"prompts": ["red", "blue"], "seeds": [1, 2], "steps": 3, **WAYS[way]}))


@pytest.mark.parametrize(
    "how",
    [
        {"strength": 0.7},
        {"start_sigma": 2.5, "fit": "pad", "posterior": "mode"},
        {"mask": True},
        {"mask": True, "strength": 0.7, "mask_blur": 2, "paste": True},
        {"extend": "left=8", "start_step": 1},
    ],
)
def test_from_a_picture_by_settings_alone(
    sd: StableDiffusion, given: dict[str, str], how: dict[str, Any]
) -> None:
    how = how | {"image": given["image"]} | ({"mask": given["mask"]} if "mask" in how else {})
    check(sd, sd.prepare("red", seeds=[1, 2], steps=3, scheduler="euler_a", **how))


@pytest.mark.parametrize("way", WAYS)
def test_what_is_complete_stays_as_it_is(sd: StableDiffusion, way: str) -> None:
    """A picture's own settings asked for anew, as `rerun` does, are the same settings."""
    for old in sd.prepare(**{"prompts": "red", "seeds": [1, 2], "steps": 3, **WAYS[way]}).settings:
        taken = inherited(vars(old), {})
        options = {field.name: taken[field.name] for field in fields(Options)}
        words = {"prompts": old.prompt, "negative": old.negative, "seeds": old.seed}
        assert complete(Request(**words, **options), sd) == (old,)


def test_nothing_is_left_open(sd: StableDiffusion) -> None:
    """None in a request is what the model or the scheduler brings; Settings hold that."""
    request = Request(["red", "blue"], seeds=[5, 6])
    parts = parts_of(request, sd)
    done = complete(request, sd, parts)
    assert [(each.prompt, each.seed) for each in done] == [
        ("red", 5), ("red", 6), ("blue", 5), ("blue", 6)
    ]  # fmt: skip
    first = done[0]
    assert (first.scheduler, first.spacing, first.steps, first.cfg) == ("ddim", "leading", 20, 7.5)
    assert (first.width, first.height, first.grammar, first.clip_skip) == (32, 32, "plain", 1)
    assert (first.noise, first.prediction_type, first.version) == (
        "independent", "epsilon", VERSION
    )  # fmt: skip
    assert (first.negative, first.guidance, first.eta) == ("", None, 0.0)


def test_some_of_the_pictures(sd: StableDiffusion) -> None:
    run = sd.prepare(["red", "blue"], seeds=[1, 2], steps=2, scheduler="euler_a")
    part = prepare(sd, run.settings[1:3])
    assert torch.equal(last(part), last(run)[1:3])


def test_what_the_first_version_wrote_is_prepared(sd: StableDiffusion, tiny_path: Path) -> None:
    text = """{"prompt": "a red boat", "negative": "grey", "seed": 7, "model": "MODEL",
    "scheduler": "dpmpp_2m", "spacing": "karras", "eta": null, "steps": 4, "cfg": 6.5, "width": 48,
    "height": 32, "device": "cpu", "dtype": "float32", "version": "0.1.0", "grammar": "a1111",
    "loras": [], "embeddings": [], "tail": "sigma_min", "clip_skip": 2,
    "prediction_type": "epsilon", "original_size": null, "crop": null, "target_size": null,
    "aesthetic_score": null, "negative_aesthetic_score": null, "image": null, "mask": null,
    "canvas": null, "refiner": null, "handover": null, "memory": "fast", "asked": null,
    "noise": "independent", "vae": null, "unet": null, "text_encoder": null,
    "text_encoder_2": null, "variant": null, "revision": null, "ema": false}"""
    old, sd = Settings.from_json(text.replace("MODEL", str(tiny_path))), replace(sd, engine="plain")
    run = prepare(sd, [old])
    assert run.settings == (old,)
    new = sd.prepare(
        "a red boat", "grey", seeds=7, scheduler="dpmpp_2m", spacing="karras", steps=4, cfg=6.5,
        width=48, height=32, grammar="a1111", tail="sigma_min", clip_skip=2,
    )  # fmt: skip
    assert torch.equal(last(run), last(new))
    later = {"version": VERSION, "digests": new.settings[0].digests, "fit": "crop"}
    assert replace(old, **later) == new.settings[0]
