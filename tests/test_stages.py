"""What the UNet is told where a prompt changes on the way down, held against telling it by hand."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sdcore
from sdcore.errors import InputError
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.stages import stack, whole_steps

STEPS = 6


@pytest.fixture(scope="module")
def sd(tiny_path: Path) -> sdcore.StableDiffusion:
    return sdcore.load(str(tiny_path), device="cpu")


@pytest.mark.parametrize("scheduler", ["euler", "heun", "dpm_2", "dpmpp_2m", "unipc"])
@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a [red|blue] house", ["red", "red", "blue", "red", "blue", "red"]),
        ("a [red:blue:3] house", ["red"] * 4 + ["blue"] * 2),
    ],
)
def test_a_step_is_told_one_thing(
    sd: sdcore.StableDiffusion, scheduler: str, prompt: str, words: list[str]
) -> None:
    how = {"scheduler": scheduler, "spacing": "karras", "steps": STEPS, "cfg": 5.0}
    alone = {w: sd.prepare(f"a {w} house", **how) for w in set(words)}
    first = alone[words[0]]
    solver = first.scheduler.solver

    def by_hand(
        denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
    ) -> tuple[Tensor, Prediction, Memory]:
        return solver(alone[words[interval.index]].denoise, x, interval, memory, draw)

    with torch.inference_mode():
        *_, wanted = sdcore.sample(first.denoise, first.start, first.sigmas, by_hand, first.noise)
        *_, seen = sd.prepare(prompt, grammar="a1111", **how)
        *_, other = alone["blue"]
    # Heun's second question is asked one rounding away, and so are its constants.
    assert (seen.x_next - wanted.x_next).abs().max() < 1e-6
    assert (seen.x_next - other.x_next).abs().max() > 1e-4


def test_the_words_are_read_once_however_often_they_change(sd: sdcore.StableDiffusion) -> None:
    run = sd.prepare("a [red|blue] house", grammar="a1111", steps=STEPS)
    assert len(run.stages) == STEPS - 1
    assert len({id(stage.conditions) for stage in run.stages}) == 2


def test_the_end_of_a_step_belongs_to_the_step() -> None:
    asked = []

    def denoise(x: Tensor, sigma: float) -> Prediction:
        asked.append(sigma)
        return Prediction(x, x)

    def solver(
        ask: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
    ) -> tuple[Tensor, Prediction, Memory]:
        prediction = ask(x, interval.sigma)
        ask(x, interval.sigma_next)
        return x, prediction, ()

    for sigmas in ((4.0, 2.0, 0.0), (0.0, 2.0, 4.0)):  # down, and up as inversion goes
        asked.clear()
        list(sdcore.sample(denoise, torch.zeros(1), sigmas, whole_steps(solver)))
        (a, b), (c, d) = asked[:2], asked[2:]
        assert (a, c) == sigmas[:2]
        assert min(a, c) < b < max(a, c)
        assert d == pytest.approx(sigmas[2], abs=1e-9)


def told(tokens: int) -> dict[str, torch.Tensor]:
    return {"context": torch.full((1, tokens, 4), float(tokens))}


def test_contexts_are_joined_only_for_those_that_are_drawn_together() -> None:
    """Eight prompts whose least common multiple would be 360,360 chunks."""
    rows = [told(77 * chunks) for chunks in (1, 3, 5, 7, 8, 9, 11, 13)]
    stage = stack(math.inf, {"uncond": [told(77)] * 8, "cond": rows})
    for i, row in enumerate(rows):
        alone = stage.of(slice(i, i + 1)).conditions
        assert alone["cond"]["context"].equal(row["context"])
        assert alone["uncond"]["context"].shape == row["context"].shape
    assert stage.of(slice(1, 3)).conditions["cond"]["context"].shape == (2, 15 * 77, 4)
    with pytest.raises(InputError, match="--batch 1"):
        stage.conditions["cond"]


def test_a_prompt_of_many_pictures_lies_in_memory_once() -> None:
    one = told(77)
    stage = stack(math.inf, {"cond": [one] * 10_000}).told_also(extra=torch.zeros(10_000, 1))
    part = stage.of(slice(5, 6)).conditions["cond"]
    assert part.keys() == {"context", "extra"}
    assert part["context"].equal(one["context"])
