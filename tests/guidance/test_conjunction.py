"""AND in a prompt: eq. 11 of composable diffusion, under any guidance, whatever the company."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sdcore
from sdcore.errors import InputError
from sdcore.guidance import CFG, Conjunction, Rescale, resolve
from sdcore.run import Run

HOW = {"grammar": "a1111", "steps": 3, "cfg": 4.0, "seeds": [1], "scheduler": "dpmpp_2m"}


@pytest.fixture(scope="module")
def sd(tiny_path: Path) -> sdcore.StableDiffusion:
    return sdcore.load(tiny_path, device="cpu")


def last(run: Run) -> Tensor:
    with torch.inference_mode():
        *_, step = run
        return step.x_next


class ByHand:
    """The equation, on raw outputs."""

    def __init__(self, scale: float, *weights: float) -> None:
        self.scale, self.weights = scale, weights

    def branches(self, sigma: float) -> tuple[str, ...]:
        return ("uncond", "cond", "other")

    def combine(self, raw: dict[str, Tensor], sigma: float) -> Tensor:
        names = ("cond", "other")
        away = [w * (raw[n] - raw["uncond"]) for n, w in zip(names, self.weights, strict=True)]
        return raw["uncond"] + self.scale * sum(away)


@pytest.mark.parametrize(
    ("prompt", "weights"),
    [
        ("a red house AND a blue boat :0.5", (1.0, 0.5)),
        ("a red house :0.3 AND a blue boat :0.7", (0.3, 0.7)),
        ("a red house :1.5 AND a blue boat :-0.5", (1.5, -0.5)),
    ],
)
def test_the_equation(sd: sdcore.StableDiffusion, prompt: str, weights: tuple[float, ...]) -> None:
    first, second = (sd.prepare(words, **HOW) for words in ("a red house ", " a blue boat"))
    other = second.stages[0].conditions["cond"]
    told = {**first.stages[0].conditions, "other": other}
    stages = (replace(first.stages[0], conditions=told),)
    wanted = last(replace(first, stages=stages, guidance=ByHand(4.0, *weights)))
    run = sd.prepare(prompt, **HOW)
    assert (last(run) - wanted).abs().max() < 1e-4
    assert run.nfe == 3 * 3  # cond, the other and uncond, in each step


def test_each_picture_is_as_drawn_alone(sd: sdcore.StableDiffusion) -> None:
    prompts = ["a red house", "a AND b:0.5 AND c:-0.2", "a [red|blue] boat:2 AND d"]
    alone = torch.cat([last(sd.prepare(prompt, **HOW)) for prompt in prompts])
    together = sd.prepare(prompts, **HOW)
    assert torch.equal(last(together), alone)
    assert torch.equal(torch.cat([last(part) for part in together.split(1)]), alone)


def test_any_guidance_sees_one_prompt(sd: sdcore.StableDiffusion) -> None:
    prompt = "a red house AND a red house:0"
    for guidance in (CFG(3.0), Rescale(CFG(3.0), 0.7), CFG(3.0, sigma_low=1.0), CFG(1.0), CFG(0.0)):
        run = sd.prepare(prompt, guidance=guidance, **HOW)
        assert isinstance(run.joined, Conjunction)
        plain = sd.prepare("a red house ", guidance=guidance, **HOW)
        assert (last(run) - last(plain)).abs().max() < 1e-5


def test_outside_the_grammar_it_is_a_word(sd: sdcore.StableDiffusion) -> None:
    run = sd.prepare("a AND b", **{**HOW, "grammar": "plain"})
    assert not isinstance(run.joined, Conjunction)
    negative = sd.prepare("a", negative="b AND c", **HOW)
    assert set(negative.conditions) == {"cond", "uncond"}


def test_another_guidance_keeps_the_parts(sd: sdcore.StableDiffusion) -> None:
    run = sd.prepare("a AND b:0.5", **HOW)
    changed = replace(run, guidance=CFG(2.0))
    assert torch.equal(last(changed), last(sd.prepare("a AND b:0.5", guidance=CFG(2.0), **HOW)))


def test_a_branch_that_was_not_read_is_told(sd: sdcore.StableDiffusion) -> None:
    for run, guidance in (
        (sd.prepare("a", guidance=CFG(1.0), **HOW), CFG(3.0)),
        (sd.prepare("a", **HOW), resolve("cfg+pag:strength=2", 3.0)),
    ):
        with pytest.raises(InputError, match=r"which this run has not read: .*prepare\(guidance"):
            last(replace(run, guidance=guidance))


def test_a_worse_network_is_not_told_one_part_of_several(sd: sdcore.StableDiffusion) -> None:
    for guidance in ("cfg+pag", "cfg+seg", "cfg+skip"):
        with pytest.raises(InputError, match="AND joins several prompts, and the branch"):
            sd.prepare("a AND b", guidance=guidance, **HOW)
