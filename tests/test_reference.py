"""The bundled model against tensors that diffusers and transformers made of it.

`scripts/make_reference.py` recorded them, with the versions in the file's metadata; so this runs
where neither is installed. The live comparison is tests/test_bundled_beside_diffusers.py.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import sdcore

FILE = Path(__file__).parent / "reference" / "picturebook.safetensors"


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    with safe_open(FILE, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def settings() -> dict:
    with safe_open(FILE, "pt") as file:
        metadata = file.metadata()
    assert {"torch", "diffusers", "transformers"} <= set(metadata)
    return json.loads(metadata["settings"])


@pytest.fixture(scope="module")
def sd() -> sdcore.StableDiffusion:
    return sdcore.load(device="cpu", dtype="float32", engine="plain")


# Each solver once and each spacing. The rest, under `make test-full`, pairs the same solvers with
# the other spacings, as tests/schedulers/test_beside_diffusers.py does without the network.
OFTEN = (
    "run ddim leading eta 1",
    "run euler leading",
    "run euler trailing",
    "run euler_a linspace",
    "run heun karras",
    "run dpmpp_2m karras",
)


def runs() -> list:
    with safe_open(FILE, "pt") as file:
        names = [key for key in file.keys() if key.startswith("run ")]  # noqa: SIM118
    assert set(OFTEN) <= set(names)
    return [pytest.param(n, marks=() if n in OFTEN else pytest.mark.slow) for n in names]


@pytest.mark.weights
@torch.inference_mode()
def test_components(sd: sdcore.StableDiffusion, recorded: dict, settings: dict) -> None:
    context = sd.text_encoder(torch.tensor([sd.tokenizer(settings["prompt"]).ids])).last
    x = recorded["in x"]
    outputs = {"text encoder": context, "VAE decode": sd.vae.decode(x)[:1]}
    for t in (1, 500.5, 999):
        outputs[f"UNet, t = {t:g}"] = sd.unet(x, t, context.expand(2, -1, -1))[:1]
    for name, ours in outputs.items():
        theirs = recorded[f"out {name}"]
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max(), name


@pytest.mark.weights
@pytest.mark.parametrize("run", runs())
@torch.inference_mode()
def test_whole_runs(sd: sdcore.StableDiffusion, recorded: dict, settings: dict, run: str) -> None:
    _, name, spacing, *eta = run.split()
    config = {**settings["scheduler_config"]}
    sd = type(sd)(**{**vars(sd), "scheduler_config": config})
    prepared = sd.prepare(
        settings["prompt"],
        seeds=settings["seeds"],
        scheduler=name,
        spacing=spacing,
        eta=float(eta[1]) if eta else None,
        steps=settings["steps"],
        cfg=settings["cfg"],
    )
    x = prepared.start.x
    for step in prepared:
        x = step.x_next
    assert (x * prepared.plan.end_scale - recorded[run]).abs().max() <= 1e-4
