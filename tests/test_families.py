"""A small random model of every family, read by sdcore and by diffusers."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sdcore
from sdcore.checkpoints import open_model
from sdcore.checkpoints.convert import pipeline_class
from sdcore.errors import InputError
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion

pytest.importorskip("diffusers")
import diffusers

from scripts import families
from scripts.families import FAMILIES, PROMPT, SEED, ours, theirs

SIZE: dict[str, Any] = {"width": 64, "height": 64, "seeds": [SEED]}
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(family_path: Folder) -> Folder:
    return family_path


@pytest.fixture(scope="module")
def model(folder: Folder) -> Callable[[str], StableDiffusion]:
    return functools.cache(lambda name: load(folder(name), device="cpu"))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Max abs error over the reference's largest value; the reference is b."""
    return ((a - b).abs().max() / b.abs().max()).item()


def last(run: sdcore.Run) -> torch.Tensor:
    with torch.inference_mode():
        return [step.x_next for step in run][-1] * run.plan.end_scale


def pipeline(folder: Path, name: str) -> Any:
    pipe = getattr(diffusers, FAMILIES[name].pipeline).from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def ask(pipe: Any, **how: Any) -> torch.Tensor:
    how = {"height": 64, "width": 64, "num_inference_steps": 3, **how}
    generator = [torch.Generator().manual_seed(SEED)]
    return pipe(PROMPT, generator=generator, output_type="latent", **how).images


@pytest.mark.parametrize("name", FAMILIES)
def test_components_and_two_steps(folder: Folder, name: str) -> None:
    reference = theirs(folder(name), FAMILIES[name])
    own = ours(folder(name), FAMILIES[name])
    assert own.keys() == reference.keys()
    for component, value in reference.items():
        if value.any():
            assert relative(own[component], value) <= 1e-5, component
        else:
            assert not own[component].any(), component


@pytest.mark.parametrize("name", FAMILIES)
def test_the_class_that_diffusers_draws_it_with(folder: Folder, name: str) -> None:
    """SDXL's own pipeline tells the guidance scale, too; that of LCM has one text encoder."""
    checkpoint = open_model(folder(name))
    assert pipeline_class(checkpoint) == FAMILIES[name].pipeline
    unet = checkpoint.components["unet"]
    told = replace(unet, config={**unet.config, "time_cond_proj_dim": 256})
    told = replace(checkpoint, components={**checkpoint.components, "unet": told})
    distilled = pipeline_class(told)
    assert distilled == (
        FAMILIES[name].pipeline if "SDXL" in name else "LatentConsistencyModelPipeline"
    )


def test_what_sdxl_is_told_of_the_picture(
    folder: Folder, model: Callable[[str], StableDiffusion]
) -> None:
    """Sizes are (width, height) here and (height, width) there; "" as a negative is no zeros."""
    sd = model("SDXL")
    told: dict[str, Any] = {"original_size": (96, 80), "crop": (8, 16), "target_size": (48, 32)}
    run = sd.prepare(PROMPT, "", steps=3, cfg=5.0, **SIZE, **told)
    theirs = {"original_size": (80, 96), "crops_coords_top_left": (16, 8), "target_size": (32, 48)}
    both = theirs | {f"negative_{name}": value for name, value in theirs.items()}
    pipe = pipeline(folder("SDXL"), "SDXL")
    reference = ask(pipe, negative_prompt="", guidance_scale=5.0, **both)
    assert relative(last(run), reference) <= 1e-5
    for other in (
        sd.prepare(PROMPT, steps=3, cfg=5.0, **SIZE, **told),  # zeros
        sd.prepare(PROMPT, "", steps=3, cfg=5.0, **SIZE),  # the picture's own size
    ):
        assert relative(last(other), reference) > 1e-3


def test_what_the_refiner_is_told_of_the_picture(
    folder: Folder, model: Callable[[str], StableDiffusion]
) -> None:
    scores = {"aesthetic_score": 7.0, "negative_aesthetic_score": 1.5}
    run = model("SDXL refiner").prepare(
        PROMPT, original_size=(96, 80), crop=(8, 16), **SIZE, **scores
    )
    pipe = pipeline(folder("SDXL refiner"), "SDXL refiner")
    given = ((80, 96), (16, 8), (64, 64))
    options = {"dtype": torch.float32, "text_encoder_projection_dim": 24}
    reference = pipe._get_add_time_ids(*given, *scores.values(), *given, **options)
    assert torch.equal(run.conditions["cond"]["time_ids"], reference[0])
    assert torch.equal(run.conditions["uncond"]["time_ids"], reference[1])


def test_the_refiner_takes_over(folder: Folder, model: Callable[[str], StableDiffusion]) -> None:
    base, refiner = (pipeline(folder(name), name) for name in ("SDXL", "SDXL refiner"))
    half = ask(base, num_inference_steps=5, denoising_end=0.6, guidance_scale=5.0)
    reference = refiner(
        PROMPT,
        image=half,
        num_inference_steps=5,
        denoising_start=0.6,
        guidance_scale=5.0,
        output_type="latent",
    ).images
    sd, second = model("SDXL"), model("SDXL refiner")
    sigma = sd.prepare("", steps=1).scheduler.noise_schedule.sigma(400)
    how = {**SIZE, "steps": 5, "cfg": 5.0, "refiner": second}
    run = sd.prepare(PROMPT, **how, handover=sigma)
    assert relative(last(run), reference) <= 1e-5
    assert run.settings[0].refiner == str(folder("SDXL refiner"))
    usual = sd.prepare(PROMPT, **how)
    assert usual.settings[0].handover == usual.scheduler.noise_schedule.sigma(200)
    # A picture does not depend on its batch here either.
    both = sd.prepare(["blue", PROMPT], **how, handover=sigma)
    assert torch.equal(last(both)[1:], last(run))
    assert torch.equal(last(both.split(1)[1]), last(run))


@pytest.mark.parametrize("name", ["SD 1.x inpainting", "SDXL"])
def test_a_picture_does_not_depend_on_its_batch(
    model: Callable[[str], StableDiffusion], name: str
) -> None:
    how = {"width": 64, "height": 64, "steps": 2, **families.pictures(FAMILIES[name])}
    whole = last(model(name).prepare(["a red boat", "blue"], seeds=[1, 2], **how))
    assert torch.equal(whole[3:], last(model(name).prepare("blue", seeds=[2], **how)))


@pytest.mark.parametrize(
    ("name", "steps", "cfg", "why"),
    [
        ("SD-Turbo", 4, 1.0, "SD-Turbo and SDXL-Turbo"),
        ("SDXL-Turbo", 4, 1.0, "SD-Turbo and SDXL-Turbo"),
        ("LCM", 4, 8.5, "told the guidance scale"),
        ("SDXL", 20, 7.5, None),
    ],
)
def test_steps_and_scale_as_published(
    model: Callable[[str], StableDiffusion], name: str, steps: int, cfg: float, why: str | None
) -> None:
    run = model(name).prepare("red", **SIZE)
    assert (run.settings[0].steps, run.settings[0].cfg) == (steps, cfg)
    assert [why in line for line in run.warnings] == ([] if why is None else [True])
    assert run.conditions.keys() == ({"cond"} if why else {"cond", "uncond"})
    told = model(name).prepare("red", steps=2, cfg=3.0, **SIZE)
    assert (told.settings[0].steps, told.settings[0].cfg) == (2, 3.0)
    assert not told.warnings


def test_a_model_names_its_own_scale(model: Callable[[str], StableDiffusion]) -> None:
    """In a key that diffusers passes over; 0 is a scale too."""
    sd = model("SD 1.x")

    def drawn(scale: object) -> float:
        config = dict(sd.scheduler_config or {}) | {"_guidance_scale": scale}
        return replace(sd, scheduler_config=config).prepare("red", **SIZE).settings[0].cfg

    assert (drawn(2.5), drawn(0)) == (2.5, 0.0)
    few = model("LCM")  # whose steps stay its own
    few = replace(few, scheduler_config=dict(few.scheduler_config or {}) | {"_guidance_scale": 3})
    settings = few.prepare("red", **SIZE).settings[0]
    assert (settings.steps, settings.cfg) == (4, 3.0)
    for wrong in ("2.5", True, None, float("nan"), [2]):
        with pytest.raises(InputError, match=r"_guidance_scale in scheduler_config\.json is"):
            drawn(wrong)


def test_the_scale_reaches_a_unet_that_is_told_it(model: Callable[[str], StableDiffusion]) -> None:
    one, two = (last(model("LCM").prepare("red", cfg=cfg, **SIZE)) for cfg in (1.0, 8.0))
    assert relative(one, two) > 1e-3


@pytest.mark.parametrize(
    "name", ["SD 1.x", "SD 1.x inpainting", "SD 2.x v", "LCM", "SDXL", "SDXL refiner"]
)
def test_bfloat16_is_no_farther_off_than_diffusers(folder: Folder, name: str) -> None:
    own, reference = families.errors(folder(name), FAMILIES[name], torch.bfloat16)
    assert own <= 1.05 * reference


def test_sdxls_vae_is_float32_in_float16(folder: Folder) -> None:
    for name, dtype in {"SDXL": torch.float32, "SD 1.x": torch.float16}.items():
        sd = load(folder(name), "cpu", "float16")
        assert (sd.unet.conv_in.weight.dtype, sd.vae.dtype) == (torch.float16, dtype)
    sd = load(folder("SDXL"), "cpu", "bfloat16")
    assert sd.vae.dtype == torch.bfloat16
    assert sd.decode(torch.zeros(1, 4, 8, 8))[0].size == (64, 64)


def test_what_the_unet_predicts_can_be_said(model: Callable[[str], StableDiffusion]) -> None:
    sd = model("SD 2.x v")
    run = sd.prepare("red", **SIZE)
    assert run.settings[0].prediction_type == run.scheduler.prediction_type == "v_prediction"
    for name in ("epsilon", "eps"):
        told = sd.prepare("red", prediction_type=name, **SIZE)
        assert told.settings[0].prediction_type == told.denoise.process.prediction_type == "epsilon"
    with pytest.raises(InputError, match="unknown prediction type 'epsilom': did you mean epsilon"):
        sd.prepare("red", prediction_type="epsilom")


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("SD 1.x", {"crop": (0, 0)}, "crop is nothing that this model is told"),
        ("SDXL", {"aesthetic_score": 6.0}, "aesthetic_score is nothing that this model is told"),
        ("SDXL", {"original_size": (-1, 5)}, "original_size must be at least 0"),
        ("SDXL refiner", {"aesthetic_score": float("nan")}, "aesthetic_score must be at least 0"),
        ("SDXL", {"handover": 1.0}, "a hand-over needs a refiner"),
        ("SD 1.x", {"image": "photo.png", "mask": "mask.png"}, "photo.png is missing"),
        ("SD 1.x", {"mask": "mask.png"}, "a mask, or what to extend, needs an image"),
        ("SD 1.x inpainting", {}, "repaints a given picture: give it an image and a mask"),
        ("SD 1.x inpainting", {"image": "photo.png"}, "give it an image and a mask"),
        ("SD 1.x inpainting", {"image": "no.png", "mask": "no.png"}, "no.png is missing"),
    ],
)
def test_what_is_not_for_this_model(
    model: Callable[[str], StableDiffusion], name: str, how: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        model(name).prepare("red", **how)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("refiner", "how", "message"),
    [
        ("SD 1.x", {}, "works on other latents than"),
        ("SDXL inpainting", {}, "is an inpainting model, and refines nothing"),
        ("SDXL refiner", {"handover": -1.0}, "the hand-over is a sigma of at least 0"),
    ],
)
def test_what_is_no_refiner(
    model: Callable[[str], StableDiffusion], refiner: str, how: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model("SDXL").prepare("red", refiner=model(refiner), **how)


def test_a_unet_that_is_told_something_else(folder: Folder) -> None:
    sd = load(folder("SDXL"), "cpu")
    odd = replace(sd.unet.config, projection_class_embeddings_input_dim=70)
    sd.unet.config = odd
    with pytest.raises(InputError, match="a vector of 70, which is no pooled text of 24"):
        _ = sd.conditioner


def test_settings_of_every_kind_are_read_back(model: Callable[[str], StableDiffusion]) -> None:
    refiner = model("SDXL refiner")
    settings = model("SDXL").prepare(PROMPT, refiner=refiner, crop=(1, 2), **SIZE).settings[0]
    assert settings.negative is None
    assert (settings.original_size, settings.crop) == ((64, 64), (1, 2))
    assert (settings.target_size, settings.aesthetic_score) == ((64, 64), 6.0)
    assert sdcore.Settings.from_json(settings.to_json()) == settings
    garbled = json.loads(settings.to_json()) | {"crop": [1, "2"]}
    with pytest.raises(InputError, match="crop is"):
        sdcore.Settings.from_json(json.dumps(garbled))


def test_pictures_of_before_are_still_read() -> None:
    before = {
        "prompt": "red",
        "negative": "",
        "seed": 1,
        "model": "picturebook",
        "scheduler": "euler",
        "spacing": "karras",
        "eta": None,
        "steps": 20,
        "cfg": 7.5,
        "width": 128,
        "height": 128,
        "device": "cpu",
        "dtype": "float32",
        "version": "0.1.0",
    }
    settings = sdcore.Settings.from_json(json.dumps(before))
    assert (settings.prediction_type, settings.crop, settings.image) == (None, None, None)
