"""What ships in weights/ beside the model: each adapter does what its card says."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdcore
from scripts.train.pictures import to_tensor
from scripts.train.stream import description, lessons
from scripts.train.world import canonical_caption
from sdcore.adapters.files import find_adapter
from sdcore.checkpoints import bundled_adapters, find_model
from sdcore.checkpoints.find import bundled_embeddings
from sdcore.denoiser import Denoiser
from sdcore.guidance import CFG
from sdcore.process import Process, RectifiedFlow, VariancePreserving
from sdcore.schedulers import resolve
from sdcore.schedulers.noise_schedule import SD_PROCESS
from sdcore.schedulers.solvers.euler import euler
from sdcore.strict_json import parse

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(not bundled_adapters(), reason="no bundled adapters here"),
]
PROMPTS = ("a red house at sunset", "a white cat left of a red car in the snow")


@pytest.fixture(scope="module")
def sd() -> sdcore.StableDiffusion:
    return sdcore.load(device="cpu", dtype="float32")


def drawn(sd: sdcore.StableDiffusion, prompts: Sequence[str] = PROMPTS, **options) -> Tensor:
    with torch.inference_mode():
        *_, last = sd.prepare(list(prompts), seeds=[3], **options)
    return last.x_next


def test_adapters_are_known_by_name(sd: sdcore.StableDiffusion, tmp_path: Path) -> None:
    names = {"picturebook-few-steps", "picturebook-v", "picturebook-flow", "picturebook-cyanotype"}
    assert names <= bundled_adapters().keys()
    file = bundled_adapters()["picturebook-v"]
    assert find_adapter("picturebook-v") == find_adapter(file) == file
    (lora,) = sd.with_lora("picturebook-v:0.5".partition(":")[0], 0.5).loras
    assert lora.spec == "picturebook-v:0.5"
    assert not lora.unmatched


def test_four_steps_without_guidance_are_nearly_sixteen_with_it(sd: sdcore.StableDiffusion) -> None:
    """The few-step adapter, against what its teacher draws from the same noise."""
    teacher = drawn(sd, scheduler="dpmpp_2m", spacing="trailing", steps=16, cfg=5.0)
    few = {"scheduler": "euler", "spacing": "trailing", "steps": 4, "cfg": 1.0}
    without, with_it = drawn(sd, **few), drawn(sd.with_lora("picturebook-few-steps"), **few)
    missed, left = ((x - teacher).square().mean().item() for x in (without, with_it))
    assert left < 0.5 * missed
    assert left < 0.1


def v_process() -> Process:
    file = find_adapter("picturebook-v").with_suffix(".json")
    scheduler = resolve(config=parse(file.read_text()))
    return VariancePreserving(scheduler.noise_schedule, scheduler.prediction_type)


def test_the_twins_know_as_much(sd: sdcore.StableDiffusion) -> None:
    """x0 from any of the networks is as near to the truth; that of v also out of pure noise."""
    tokenizer = str(find_model("picturebook") / "tokenizer" / "tokenizer.json")
    pictures = to_tensor(lessons(tokenizer, 9, 0, 8).pixels)
    texts = [canonical_caption(description(9, i)) for i in range(8)]
    eps = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    twin, flow = sd.with_lora("picturebook-v"), sd.with_lora("picturebook-flow")

    def error(model: sdcore.StableDiffusion, process: Process, sigma: float) -> float:
        x, t = x0 + sigma * eps, process.clock.timestep(sigma)
        raw = model.unet(x * process.c_in(sigma), t, context)
        return (process.x0_eps(raw, x, sigma)[0] - x0).square().mean().item()

    with torch.inference_mode():
        x0 = sd.vae.encode(pictures).mean
        ids = torch.tensor([sd.tokenizer(text).ids for text in texts])
        context = sd.text_encoder(ids).last
        for sigma in (0.4, 1.5, 5.0, 14.0):
            plain = error(sd, SD_PROCESS, sigma)
            assert error(twin, v_process(), sigma) < 1.2 * plain
            assert error(flow, RectifiedFlow(), sigma) < 1.2 * plain
        assert error(twin, v_process(), 4000.0) < 0.7 * x0.var().item()


def test_the_twin_draws_with_its_own_scheduler(sd: sdcore.StableDiffusion) -> None:
    """Few differences to the eps model's picture from the same noise; the scheduler is its own."""
    file = find_adapter("picturebook-v").with_suffix(".json")
    twin = replace(sd.with_lora("picturebook-v"), scheduler_config=parse(file.read_text()))
    run = twin.prepare(PROMPTS[0])
    assert run.settings[0].prediction_type == "v_prediction"
    assert run.sigmas[0] > 4000
    how: dict[str, Any] = {"steps": 8, "cfg": 3.0, "scheduler": "dpmpp_2m"}
    mine, its = drawn(sd, PROMPTS[:1], **how, spacing="karras"), drawn(twin, PROMPTS[:1], **how)
    assert (mine - its).square().mean() < 0.1 * mine.var()


def test_the_flow_is_drawn_along_its_path(sd: sdcore.StableDiffusion) -> None:
    """The card's lines: Euler evenly in s, from the noise that the eps model begins with."""
    run = sd.prepare(PROMPTS[0], seeds=[3], steps=12, cfg=3.0, scheduler="euler")
    flow = sd.with_lora("picturebook-flow")
    denoise = Denoiser(flow.unet, RectifiedFlow(), run.conditions, CFG(3.0))
    levels = [s / (1 - s) for s in (0.999, *(i / 12 for i in range(11, -1, -1)))]
    with torch.inference_mode():
        *_, last = sdcore.sample(denoise, run.noise.start() * levels[0], levels, euler)
        *_, mine = run
    assert (last.x_next - mine.x_next).square().mean() < 0.2 * mine.x_next.var()


def test_the_cyanotype_is_blue(sd: sdcore.StableDiffusion) -> None:
    """What is drawn without it has the sunset's warm colours; with it hardly a colour but blue."""
    words = ["a red house at sunset"]
    print_ = sd.with_lora("picturebook-cyanotype")
    colours = []
    for model in (sd, print_):
        with torch.inference_mode():
            (picture,) = model.decode(drawn(model, words, steps=10, cfg=5.0))
        red, _, blue = np.asarray(picture, float).reshape(-1, 3).mean(axis=0)
        colours.append(blue - red)
    assert colours[0] < 0 < 10 < colours[1]


def test_the_learned_word_is_a_colour(sd: sdcore.StableDiffusion) -> None:
    """A ball in the sand: with the word it is between blue and green, and never red."""
    words = ["a big teal ball in the desert"]
    model = sd.with_embedding("picturebook-teal", "teal")
    assert bundled_embeddings().keys() == {"picturebook-teal"}
    with torch.inference_mode():
        (picture,) = model.decode(drawn(model, words, steps=10))
    red, green, blue = np.asarray(picture, float)[48:96, 48:80].reshape(-1, 3).mean(axis=0)
    assert red + 30 < min(green, blue)
