"""Films, and prompts that are blended."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sdcore.errors import InputError
from sdcore.film import Frame, Key, animated, frames_of, keys_of
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion

HOW: dict[str, Any] = {"seeds": [1], "steps": 2}


@pytest.fixture(scope="module")
def sd(tiny_path: Path) -> StableDiffusion:
    return load(tiny_path, device="cpu", engine="plain")


def told(sd: StableDiffusion, prompt: str, **more: Any) -> torch.Tensor:
    return sd.prepare(prompt, **HOW, **more).conditions["cond"]["context"]


def test_words_on_the_line(sd: StableDiffusion) -> None:
    red, blue = told(sd, "a red house"), told(sd, "blue")
    half = told(sd, "a red house", towards="blue:0.5")
    assert torch.equal(half, torch.lerp(red, blue, 0.5))
    assert torch.equal(told(sd, "a red house", towards="blue:0"), red)
    assert torch.equal(told(sd, "a red house", towards="blue:1"), blue)
    run = sd.prepare("a red house", **HOW, towards="a: b:0.25")
    assert run.settings[0].towards == "a: b:0.25"
    plain = sd.prepare("a red house", **HOW).conditions["uncond"]["context"]
    assert torch.equal(run.conditions["uncond"]["context"], plain)


def test_words_in_the_other_grammar(sd: StableDiffusion) -> None:
    """Weights, words that change midway, and more chunks than one."""
    how = {"grammar": "a1111"}
    long = "red " * 100
    half = told(sd, "blue", towards=f"{long}:0.5", **how)
    short, other = told(sd, "blue", **how), told(sd, long, **how)
    assert torch.equal(half, torch.lerp(short.repeat(1, 2, 1), other, 0.5))
    more = HOW | how | {"steps": 4}
    run = sd.prepare("red", **more, towards="[blue:a house:0.5]:0.5")
    alone = sd.prepare("[blue:a house:0.5]", **more)
    assert [stage.sigma for stage in run.stages] == [stage.sigma for stage in alone.stages]
    later = torch.lerp(told(sd, "red", **how), told(sd, "a house", **how), 0.5)
    assert torch.equal(run.stages[1].conditions["cond"]["context"], later)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"towards": "blue"}, "a share of 0 to 1"),
        ({"towards": "blue:2"}, "a share of 0 to 1"),
        ({"towards": "blue:nan"}, "a share of 0 to 1"),
        ({"towards": "a AND b:0.5", "grammar": "a1111"}, "with AND, is not blended"),
        ({"towards": f"{'a' * 200_000}:0.5"}, "letters"),
    ],
)
def test_what_is_no_way(sd: StableDiffusion, options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        sd.prepare("red", **HOW, **options)


def test_frames() -> None:
    assert keys_of(["a"], [1, 2]) == [Key("a", 1), Key("a", 2)]
    assert keys_of(["a", "b"], [1]) == [Key("a", 1), Key("b", 1)]
    assert frames_of(keys_of(["a", "b", "c"], [1, 2, 2]), 5) == [
        Frame("a", 1),
        Frame("a", 1, "b:0.5", "2:0.5"),
        Frame("b", 2),
        Frame("b", 2, "c:0.5", None),
        Frame("c", 2),
    ]
    shares = [each.variation for each in frames_of(keys_of(["a"], [1, 2]), 4)]
    assert shares == [None, "2:0.333333", "2:0.666667", None]
    for prompts, seeds in ((["a"], [1]), (["a", "b"], [1, 2, 3])):
        with pytest.raises(InputError):
            keys_of(prompts, seeds)
    with pytest.raises(InputError, match="2 to"):
        frames_of(keys_of(["a"], [1, 2]), 1)


def test_an_animation() -> None:
    frames = [Image.new("RGB", (32, 32), (level, 0, 0)) for level in (0, 120, 240)]
    with Image.open(io.BytesIO(animated(frames, 10))) as film:
        assert (film.n_frames, film.size) == (3, (32, 32))
        assert b"trainedAlgorithmicMedia" in film.info["xmp"]
        film.seek(1)
        film.load()
        assert film.info["duration"] == 100
    with pytest.raises(InputError, match="frames a second"):
        animated(frames, 0)
