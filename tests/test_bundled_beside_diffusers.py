"""The bundled model, live beside diffusers and transformers: one component pass and a whole run.

All runs are in tests/test_reference.py (recorded) and `python -m scripts.parity` (live).
"""

import numpy as np
import pytest
import torch

import sdcore
from sdcore.checkpoints import find_model

pytest.importorskip("diffusers")
from scripts import reference


@pytest.fixture(scope="module")
def sd() -> sdcore.StableDiffusion:
    return sdcore.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def ref() -> reference.Reference:
    return reference.Reference(find_model("picturebook"))


@pytest.mark.weights
@torch.inference_mode()
def test_components(sd: sdcore.StableDiffusion, ref: reference.Reference) -> None:
    inputs = reference.component_inputs(sd)
    theirs = reference.reference_components(ref, inputs)
    ours = reference.our_components(sd, inputs)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() <= 1e-5 * value.abs().max(), name


@pytest.mark.weights
@pytest.mark.parametrize(
    ("name", "spacing", "eta"),
    [
        ("ddim", "leading", 1.0),
        pytest.param("dpmpp_2m", "karras", None, marks=pytest.mark.slow),
        pytest.param("euler_a", "linspace", None, marks=pytest.mark.slow),
    ],
)
@torch.inference_mode()
def test_whole_runs(
    sd: sdcore.StableDiffusion, ref: reference.Reference, name: str, spacing: str, eta: float | None
) -> None:
    ours = reference.our_run(sd, name, spacing, eta)
    theirs = ref.run(name, spacing, eta)
    assert (ours - theirs).abs().max() <= 1e-4
    pictures = np.stack([np.asarray(p) for p in sd.decode(ours)]).astype(int)
    assert abs(pictures - ref.pictures(theirs)).max() <= 2


@pytest.mark.weights
@torch.inference_mode()
def test_the_default_scheduler_is_what_diffusers_runs(
    sd: sdcore.StableDiffusion, ref: reference.Reference
) -> None:
    """The folder as it is, on the spacing that it names, beside the pipeline's own loop."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(ref.folder)
    config = sd.scheduler_config
    assert config is not None
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, timestep_spacing=config["_spacing"]
    )
    pipe.set_progress_bar_config(disable=True)
    generator = [torch.Generator().manual_seed(4)]
    options = {"num_inference_steps": 8, "guidance_scale": 3.0}
    picture = pipe(reference.PROMPT, generator=generator, **options, height=128, width=128).images[
        0
    ]
    run = sd.prepare(reference.PROMPT, seeds=[4], steps=8, cfg=3.0)
    x = run.start.x
    for step in run:
        x = step.x_next
    ours = np.asarray(run.decode(x)[0]).astype(int)
    assert abs(ours - np.asarray(picture)).max() <= 2
