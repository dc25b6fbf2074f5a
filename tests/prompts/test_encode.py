"""What the UNet is told, against transformers' hidden states and formulas written out here."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sdcore
from sdcore.a1111 import parameters
from sdcore.errors import InputError
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion
from sdcore.prompts import emphasise, encode
from sdcore.prompts.chunks import Chunk


@pytest.fixture(scope="module")
def path(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a final LayerNorm that, like a trained one, has a mean to restore."""
    path = Path(shutil.copytree(tiny_path, tmp_path_factory.mktemp("words") / "model"))
    weights = path / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    for n, key in enumerate(k for k in tensors if "final_layer_norm" in k):
        tensors[key] = tensors[key] + 0.3 + 0.1 * torch.randn(16, generator=seeded(n))
    save_file(tensors, weights)
    return path


def seeded(n: int) -> torch.Generator:
    return torch.Generator().manual_seed(n)


@pytest.fixture(scope="module")
def sd(path: Path) -> StableDiffusion:
    return load(path, device="cpu")


@pytest.fixture(scope="module")
def reference(path: Path) -> Any:
    from transformers import CLIPTextModel

    return CLIPTextModel.from_pretrained(path / "text_encoder").eval()


def context(sd: StableDiffusion, prompt: str, **how: Any) -> torch.Tensor:
    return sd.prepare(prompt, cfg=1, steps=1, **how).conditions["cond"]["context"]


def last(run: sdcore.Run) -> torch.Tensor:
    return [step.x_next for step in run][-1]


def chunk_by_hand(sd: StableDiffusion, reference: Any, words: list[tuple[str, float]]) -> Any:
    """transformers' last hidden state, its tokens weighted and its mean restored, in float64."""
    ids, weights = [sd.tokenizer.start], [1.0]
    for text, weight in words:
        own = sd.tokenizer.backend.encode(text, add_special_tokens=False).ids
        ids, weights = ids + own, weights + [weight] * len(own)
    pads = 77 - len(ids)
    ids, weights = ids + [sd.tokenizer.end] * pads, weights + [1.0] * pads
    with torch.no_grad():
        z = reference(torch.tensor([ids])).last_hidden_state.double().numpy()[0]
    weighted = np.array([w * row for w, row in zip(weights, z, strict=True)])
    return weighted * (z.sum() / weighted.sum())


@pytest.mark.parametrize("prompt", ["", "red", "a blue boat, red house", "red " * 75])
def test_plain_words_are_told_bit_for_bit_as_ever(sd: StableDiffusion, prompt: str) -> None:
    plain = sd.text_encoder(torch.tensor([sd.tokenizer(prompt).ids])).last
    assert torch.equal(context(sd, prompt), plain)
    assert torch.equal(context(sd, prompt, grammar="a1111"), plain)
    assert torch.equal(context(sd, "(red:1.5)"), context(sd, r"\(red:1.5\)", grammar="a1111"))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a (red:1.5) house", [("a", 1), ("red", 1.5), ("house", 1)]),
        ("(red) [house]", [("red", 1.1), ("house", 1 / 1.1)]),
        ("((red)) (boat:0.2)", [("red", 1.1 * 1.1), ("boat", 0.2)]),
        ("(red:0) boat", [("red", 0), ("boat", 1)]),
    ],
)
def test_weights_are_a1111s(sd: StableDiffusion, reference: Any, prompt: str, words: list) -> None:
    ours = context(sd, prompt, grammar="a1111")[0].double().numpy()
    wanted = chunk_by_hand(sd, reference, words)
    assert np.abs(ours - wanted).max() / np.abs(wanted).max() < 1e-5


def test_chunks_stand_side_by_side(sd: StableDiffusion, reference: Any) -> None:
    ours = context(sd, "red BREAK (blue:1.3) boat" + " red" * 80, grammar="a1111")[0].numpy()
    rows = [
        [("red", 1)],
        [("blue", 1.3), ("boat" + " red" * 73, 1)],
        [("red " * 7, 1)],
    ]
    wanted = np.concatenate([chunk_by_hand(sd, reference, words) for words in rows])
    assert ours.shape == wanted.shape == (231, 16)
    assert np.abs(ours - wanted).max() / np.abs(wanted).max() < 1e-5


def test_clip_skip_is_a1111s_number(sd: StableDiffusion, reference: Any) -> None:
    ids = torch.tensor([sd.tokenizer("a red boat").ids])
    with torch.no_grad():
        states = reference(ids, output_hidden_states=True).hidden_states
    norm = reference.state_dict()
    for skip in (1, 2):
        wanted = torch.nn.functional.layer_norm(
            states[-skip], (16,), norm["final_layer_norm.weight"], norm["final_layer_norm.bias"]
        )
        assert (context(sd, "a red boat", clip_skip=skip) - wanted).abs().max() < 1e-5
    run = sd.prepare("red", clip_skip=2, steps=1)
    assert run.settings[0].clip_skip == 2
    assert "Clip skip: 2" in parameters(run.settings[0])


def test_before_the_last_layer_nothing_is_normed(sd: StableDiffusion, reference: Any) -> None:
    ids = sd.tokenizer("a red boat").ids
    with torch.no_grad():
        states = reference(torch.tensor([ids]), output_hidden_states=True).hidden_states
    ours, pooled = encode([Chunk(ids, (1.0,) * 77)], sd.text_encoder, before_last=True)
    assert (ours - states[-2]).abs().max() < 1e-5
    assert torch.equal(pooled, sd.text_encoder(torch.tensor([ids])).pooled)


@pytest.mark.parametrize("skip", [0, -1, 3, 99])
def test_a_layer_that_is_not_there(sd: StableDiffusion, skip: int) -> None:
    with pytest.raises(InputError, match=rf"clip_skip {skip} is out of range: 1 .* to 2"):
        sd.prepare("red", clip_skip=skip)


def test_weights_that_leave_nothing() -> None:
    with pytest.raises(InputError, match="leave nothing"):
        emphasise(torch.ones(1, 3, 4), [0.0, 0.0, 0.0])


def test_an_unknown_grammar(sd: StableDiffusion) -> None:
    with pytest.raises(InputError, match="unknown grammar 'compel': known are plain, a1111"):
        sd.prepare("red", grammar="compel")


def test_what_was_read_otherwise_is_told(sd: StableDiffusion) -> None:
    (line,) = sd.prepare("a (red:1.2) house").warnings
    assert "read as typed; --grammar a1111" in line
    (line,) = sd.prepare("red " * 80, grammar="a1111").warnings
    assert "is read in 2 chunks of at most 75 tokens" in line
    for text in ("a (red house", "(a [red house)", "[a:(b:0.5]"):
        (line,) = sd.prepare(text, grammar="a1111").warnings
        assert f"a bracket of the prompt {text!r} is never closed" in line
    (line,) = sd.prepare("a red house <lora:style:0.8>").warnings
    assert "'<lora:style:0.8>' in a prompt is read as words" in line
    assert "--lora FILE:0.8" in line
    assert not sd.prepare(r"a (red:1.2) [a:(b):2] \(by night :)", grammar="a1111").warnings
    assert not sd.prepare("a red house (by night)").warnings


@pytest.mark.parametrize("scheduler", ["euler", "euler_a", "dpmpp_2m"])
def test_a_change_midway_is_a_change_of_runs(sd: StableDiffusion, scheduler: str) -> None:
    how: dict[str, Any] = {"scheduler": scheduler, "steps": 6, "grammar": "a1111"}
    both = last(sd.prepare("[red:(blue boat:1.2):0.5]", negative="[house:4]", **how))
    first = sd.prepare("red", **how)
    state = next(step.state for step in first if step.index == 3)
    second = sd.prepare("(blue boat:1.2)", **how)
    state = next(step.state for step in second.steps(state) if step.index == 4)
    third = sd.prepare("(blue boat:1.2)", negative="house", **how)
    assert torch.equal(list(third.steps(state))[-1].x_next, both)


def test_a_change_is_tied_to_a_sigma_and_not_to_a_count(sd: StableDiffusion) -> None:
    how: dict[str, Any] = {"scheduler": "heun", "steps": 6}
    run = sd.prepare("[red:blue:2]", grammar="a1111", **how)
    red, blue = (sd.prepare(word, **how) for word in ("red", "blue"))
    x = run.start.x
    for sigma in (run.sigmas[0], run.sigmas[3] * 1.001, run.sigmas[3], run.sigmas[4], 0.01):
        wanted = (red if sigma > run.sigmas[3] else blue).denoise(x, sigma)
        assert torch.equal(run.denoise(x, sigma).x0, wanted.x0)


@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_a_picture_does_not_depend_on_longer_prompts_beside_it(
    sd: StableDiffusion, cfg: float
) -> None:
    how: dict[str, Any] = {"steps": 4, "cfg": cfg, "grammar": "a1111", "negative": "red BREAK boat"}
    prompts = ["red", "blue BREAK house BREAK boat", "[red:blue BREAK boat:0.5] (house:1.3)"]
    whole = sd.prepare(prompts, seeds=[1, 2], **how)
    together = last(whole)
    for part in (1, 2, 4):
        assert torch.equal(torch.cat([last(run) for run in whole.split(part)]), together)
    for i, prompt in enumerate(prompts):
        alone = last(sd.prepare(prompt, seeds=[1, 2], **how))
        assert torch.equal(alone, together[2 * i : 2 * i + 2])


def test_a_context_said_twice_is_the_same_context(sd: StableDiffusion) -> None:
    x, told = torch.randn(1, 4, 4, 4), torch.randn(1, 77, 16)
    once, twice = sd.unet(x, 500.0, told), sd.unet(x, 500.0, told.repeat(1, 2, 1))
    assert (once - twice).abs().max() < 1e-5
