"""What can be copied draws the same picture, equal to the bit."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from sdcore.branching import gone_on
from sdcore.errors import InputError
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion
from sdcore.recipes import Leg, command, python
from sdcore.run import Run
from sdcore.settings import same_schedule

Command = Callable[..., tuple[int, Path, str]]
SAID = frozenset(("device", "model"))
BEGUN: Mapping[str, object] = {"scheduler": "euler_a", "steps": 6}
WAYS = [
    {},
    {"cfg": 3.0, "guidance": "cfg+interval:low=0.3,high=5", "negative": "it's blue", "width": 40},
    {"spacing": "sigmas:14,5,2,1,0", "scheduler": "heun", "steps": None, "eta": None},
    {"eta": 0.5, "scheduler": "ddim", "tile": "xy", "variation": "5:0.25", "negative": ""},
    {"scheduler": "dpmpp_2m:euler_at_final=1", "spacing": "karras", "grammar": "a1111"},
]


@pytest.fixture
def sd(tiny_path: Path) -> StableDiffusion:
    return load(tiny_path, device="cpu")


def drawn(run: Run, at: torch.Tensor) -> bytes:
    return run.decode(at)[0].tobytes()


def both(legs: list[Leg], command_line: Command, folder: Path) -> list[bytes]:
    """The pixels that the command and the program draw."""
    for line in command(legs).splitlines():
        program, *words = shlex.split(line)
        assert program == "sdcore"
        status, path, err = command_line(*words)
        assert status == 0, err
    exec(python(legs), {})
    return [Image.open(each).tobytes() for each in (path, folder / "picture.png")]


@pytest.mark.parametrize("more", WAYS, ids=range(len(WAYS)))
@torch.inference_mode()
def test_one_run(
    more: Mapping[str, object], sd: StableDiffusion, command: Command, tmp_path: Path
) -> None:
    given = {**BEGUN, **more}
    run = sd.prepare('a "red" boat, it\'s $HOME', seeds=[3], **given)
    *_, step = run
    said = SAID | {name for name, value in given.items() if value is not None}
    legs = [Leg(run.settings[0], said)]
    assert both(legs, command, tmp_path) == [drawn(run, step.x_next)] * 2


@torch.inference_mode()
def test_from_a_picture(sd: StableDiffusion, command: Command, tmp_path: Path) -> None:
    image = Image.effect_noise((32, 32), 80).convert("RGB")
    mask = Image.new("L", (32, 32)).point(lambda _: 0)
    mask.paste(255, (8, 8, 24, 24))
    given = {**BEGUN, "image": image, "mask": mask, "strength": 0.8, "paste": True}
    run = sd.prepare("a boat", seeds=[3], **given)
    *_, step = run
    image.save(tmp_path / "image.png")
    mask.save(tmp_path / "mask.png")
    legs = [Leg(run.settings[0], SAID | given.keys())]
    assert both(legs, command, tmp_path) == [drawn(run, step.x_next)] * 2


@torch.inference_mode()
def test_branches_of_branches(sd: StableDiffusion, command: Command, tmp_path: Path) -> None:
    """Another prompt in the same steps; then another solver, scale and seed below them."""
    words, given = "a red boat", {**BEGUN, "seeds": [3]}
    run = sd.prepare(words, **given)
    legs = [Leg(run.settings[0], SAID | BEGUN.keys(), 2)]
    *_, step = islice(run, 2)
    for words, more, stop in (
        ("-a blue boat", {}, 2),
        ("a tree", {"scheduler": "dpmpp_sde", "cfg": 4.0, "seeds": [9], "steps": 7}, None),
    ):
        given = {**given, **more}
        new, old = sd.prepare(words, **given), legs[-1].settings
        same = same_schedule(old, new.settings[0])
        run = new.resumed(step.state, run.sigmas if same else ())
        seed = given["seeds"][0]
        settings = gone_on(old, new.settings[0], step.state, seed=seed, asked=(words, None))
        legs.append(Leg(settings, frozenset(more), stop, same))
        *_, step = islice(run, stop) if stop else run
    assert [each.settings.changes != () for each in legs] == [False, True, True]
    assert both(legs, command, tmp_path) == [drawn(run, step.x_next)] * 2


def test_the_words_of_both(sd: StableDiffusion) -> None:
    settings = replace(
        sd.prepare("a house", seeds=[0], scheduler="euler").settings[0],
        model="picturebook",
        loras=("style.safetensors:0.5", "b.safetensors:unet=1,text=0"),
        embeddings=("cat.pt:<cat>",),
    )
    leg = Leg(settings, frozenset(("loras", "embeddings", "scheduler")))
    text = command([leg])
    assert text.startswith("sdcore sample 'a house' --negative= --seed=0 --scheduler euler")
    assert "--embedding 'cat.pt:<cat>' --lora style.safetensors:0.5 --lora" in text
    assert "sdcore.load('picturebook').with_embedding('cat.pt', '<cat>')" in python([leg])
    assert ".with_lora('b.safetensors', unet=1.0, text=0.0)" in python([leg])
    with pytest.raises(InputError, match="has no command"):
        command([Leg(replace(settings, seed=-1))])
