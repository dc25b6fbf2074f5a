"""Runs that are stopped and gone on with, as a user types them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sdcore.images import read_settings
from sdcore.loading import load
from sdcore.sampling import State
from sdcore.state_file import read
from tests.cli.shell import pixels

Command = Callable[..., tuple[int, Path, str]]


@pytest.fixture
def stopped(tiny_path: Path, tmp_path: Path, command: Command) -> Callable[..., Path]:
    """A state of two pictures after three of six steps, as a stopped run leaves it."""
    sd = load(tiny_path, device="cpu")

    def after(steps: int = 3, **how: object) -> Path:
        how = {"scheduler": "dpmpp_2m_sde", "steps": 6, "seeds": [1, 2], **how}
        run = sd.prepare("a red boat", **how)
        path = tmp_path / "run.safetensors"
        with torch.inference_mode():
            for step in run:
                if step.index + 1 == steps:
                    break
        step.state.save(path, [each.to_json() for each in run.settings], sigmas=run.sigmas)
        return path

    return after


def asked(tiny_path: Path, *more: object) -> tuple[object, ...]:
    return ("sample", "a red boat", "--model", tiny_path, "--device", "cpu", "--steps", 6, *more)


HOW = ("--scheduler", "dpmpp_2m_sde", "--seed", "1-2")


def test_equal_to_the_run_that_was_never_stopped(
    tiny_path: Path, tmp_path: Path, command: Command, stopped: Callable[..., Path]
) -> None:
    command(*asked(tiny_path, *HOW, "--out", "whole", "--batch", 2))
    for steps in (3, 6):  # also between the last step and the picture
        state = stopped(steps)
        kept = state.read_bytes()
        more = ("--state", "rest.safetensors") if steps == 3 else ("--steps-sheet",)
        status, path, err = command("resume", state, "--out", f"rest{steps}", *more)
        assert (status, "there is no sheet of steps" in err) == (0, steps == 6)
        for each in sorted((tmp_path / "whole").iterdir()):
            assert (path.parent / each.name).read_bytes() == each.read_bytes()
        assert state.read_bytes() == kept
        assert not (tmp_path / "rest.safetensors").exists()


@pytest.mark.parametrize(
    "scheduler", ["restart:high=4,low=0.5", "euler_churn:s_churn=1", "dpmpp_2m"]
)
def test_a_second_stop(
    tiny_path: Path, command: Command, stopped: Callable[..., Path], scheduler: str
) -> None:
    """Of a run that was given other steps at its first: its sigmas above are not the settings'."""
    first = stopped(2, scheduler="euler")
    names = {"scheduler": scheduler, "steps": 9}
    run = load(tiny_path, device="cpu").prepare("a red boat", seeds=[1, 2], **names)
    with torch.inference_mode():
        changed = run.resumed(State.load(first))
        steps = list(changed)
        steps[1].state.save(first, [each.to_json() for each in run.settings], sigmas=changed.sigmas)
        rest = list(run.resumed(State.load(first), read(first).sigmas))
        assert torch.equal(rest[-1].x_next, steps[-1].x_next)
        _, path, _ = command("resume", first)
        drawn = run.decode(steps[-1].x_next)[0]
    assert drawn.tobytes() == Image.open(path).tobytes()


def test_another_prompt_is_read_as_one(command: Command, stopped: Callable[..., Path]) -> None:
    state = stopped()
    for words, why in (("a <lora:style:0.8>", "<lora:style>"), ("a" * 200_000, "letters")):
        status, _, err = command("resume", state, "--grammar", "a1111", "--prompt", words)
        assert (status, why in err, err.count("\n")) == (2, True, 1)


def test_a_state_is_not_written_over(command: Command, stopped: Callable[..., Path]) -> None:
    state = stopped()
    kept = state.read_bytes()
    status, _, err = command("resume", state, "--state", state)
    assert (status, "is there already" in err, state.read_bytes() == kept) == (2, True, True)


def test_whatever_is_changed_is_told(
    command: Command, stopped: Callable[..., Path], tmp_path: Path
) -> None:
    state = stopped()
    sigma = State.load(state).sigma
    more = ("--scheduler", "heun", "--cfg", 3, "--prompt", "blue", "--steps", 9, "--steps-sheet")
    status, path, _ = command("resume", state, *more)
    assert status == 0
    settings = read_settings(path)
    (change,) = settings.changes
    assert change.startswith(f"from sigma {sigma:.4g}: prompt a red boat -> blue")
    for part in ("scheduler dpmpp_2m_sde -> heun", "cfg 7.5 -> 3.0", "steps 6 -> 9"):
        assert part in change
    assert (settings.prompt, settings.scheduler, settings.seed) == ("blue", "heun", 1)
    assert "was changed midway, from sigma" in command("rerun", path)[2]


def test_by_hand_it_is_the_same(
    tiny_path: Path, command: Command, stopped: Callable[..., Path]
) -> None:
    state = stopped()
    stood = State.load(state)
    _, path, _ = command("resume", state, "--scheduler", "heun", "--cfg", 3)
    run = load(tiny_path, device="cpu").prepare(
        "a red boat", seeds=[1, 2], scheduler="heun", steps=6, cfg=3.0
    )
    with torch.inference_mode():
        *_, step = run.resumed(stood)
        assert run.decode(step.x_next)[0].tobytes() == Image.open(path).tobytes()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--model", "picturebook"), "--model is what"),
        (("--width", 64), "--width is what"),
        (("--seed", 5), "--seed is what"),
        (("--image", "x.png"), "--image is what"),
        (("--scheduler", "heun", "--scheduler", "euler"), "give each option once"),
        (("--sigmas", "14,13,12"), "nothing to go on with"),
    ],
)
def test_what_cannot_be_changed(
    command: Command, stopped: Callable[..., Path], more: tuple, why: str
) -> None:
    state = stopped()
    status, _, err = command("resume", state, *more)
    assert (status, why in err, err.count("\n")) == (2, True, 1)
    assert state.exists()


def test_a_state_of_another_model_or_size(
    command: Command, stopped: Callable[..., Path], tmp_path: Path
) -> None:
    state = stopped()
    held = State.load(state)
    from sdcore.settings import Settings

    settings = [Settings.from_json(each) for each in read(state).settings]
    replace(held, x=held.x.repeat(1, 1, 2, 1), memory=()).save(
        state, [each.to_json() for each in settings]
    )
    status, _, err = command("resume", state)
    assert (status, "does not go on with" in err) == (2, True)
    digest, _, name = settings[0].digests[0].partition(" ")
    other = [replace(each, digests=(f"{'0' * len(digest)} {name}",)) for each in settings]
    held.save(state, [each.to_json() for each in other])
    status, _, err = command("resume", state)
    assert (status, "is the state of another model" in err) == (2, True)
    held.save(state)
    assert "holds no settings" in command("resume", state)[2]
    assert "is missing" in command("resume", "no.safetensors")[2]


def test_one_state_one_run(tiny_path: Path, command: Command, tmp_path: Path) -> None:
    status, _, _ = command(*asked(tiny_path, *HOW, "--state", "run.safetensors"))
    assert status == 0
    assert not (tmp_path / "run.safetensors").exists()
    (tmp_path / "run.safetensors").write_bytes(b"")
    status, _, err = command(*asked(tiny_path, *HOW, "--state", "run.safetensors"))
    assert (status, "is there already: sdcore resume" in err) == (2, True)
    for more in (("--batch", 1), ("--cfg", 3, "--cfg", 5)):
        status, _, err = command(*asked(tiny_path, *HOW, "--state", "new.safetensors", *more))
        assert (status, "--state keeps one run" in err) == (2, True)


OWN = """
import os, time
def solver(denoise, x, interval, memory, draw):
    prediction = denoise(x, interval.sigma)
    if x.shape[-1] > 1 and interval.index == 2:  # no rehearsal
        {}
    return x + (interval.sigma_next - interval.sigma) * prediction.eps, prediction, memory
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_state(
    tiny_path: Path, tmp_path: Path, command: Command, number: signal.Signals
) -> None:
    Path("own.py").write_text(OWN.format(f"os.kill(os.getpid(), {number:d})"))
    how = ("--scheduler", "own.py", "--state", "run.safetensors")
    status, _, err = command(*asked(tiny_path), *how)
    assert status == 130
    assert "sdcore resume run.safetensors goes on" in err
    assert State.load(tmp_path / "run.safetensors").index == 2


def test_a_process_that_is_told_to_stop(tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN.format("time.sleep(120)"))
    args = (*asked(tiny_path), "--scheduler", "own.py", "--state", "run.safetensors")
    process = subprocess.Popen(
        [sys.executable, "-m", "sdcore", *map(str, args)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    state = tmp_path / "run.safetensors"
    while process.poll() is None and not (state.exists() and State.load(state).index == 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "sdcore resume run.safetensors goes on" in err
    assert "Traceback" not in err


def test_stopping_after_a_number_of_steps(
    tiny_path: Path, tmp_path: Path, command: Command
) -> None:
    """It leaves the state that goes on to the same picture, and says where it is."""
    how = ("--scheduler", "euler_a", "--seed", 3)
    _, whole, _ = command(*asked(tiny_path, *how, "--out", "whole.png"))
    status, path, err = command(
        *asked(tiny_path, *how, "--state", "two.safetensors", "--stop-after", 2, "--sheet")
    )
    assert (status, path.name, "sdcore resume two.safetensors goes on" in err) == (
        *(0, "two.safetensors", True),
    )
    assert State.load(tmp_path / "two.safetensors").index == 2
    more = ("--state", "three.safetensors", "--stop-after", 1)
    assert command("resume", "two.safetensors", *more)[0] == 0
    assert State.load(tmp_path / "three.safetensors").index == 3
    for state in ("two.safetensors", "three.safetensors"):
        _, path, _ = command("resume", state, "--out", f"{state}.png")
        assert path.read_bytes() == whole.read_bytes()
    for lacking in (("--stop-after", 2), ("--state", "no.safetensors", "--stop-after", 0)):
        status, _, err = command(*asked(tiny_path, *how, *lacking))
        assert (status, "at least 1 step" in err, err.count("\n")) == (2, True, 1)


def test_another_seed_for_the_noise_that_is_left(
    tiny_path: Path, tmp_path: Path, command: Command
) -> None:
    more = ("--state", "two.safetensors", "--stop-after", 2)
    command(*asked(tiny_path, "--scheduler", "euler_a", "--seed", 3, *more))
    _, same, _ = command("resume", "two.safetensors", "--seed", 3, "--out", "same.png")
    assert read_settings(same).changes == ()
    _, other, _ = command("resume", "two.safetensors", "--seed", 4, "--out", "other.png")
    settings = read_settings(other)
    assert (settings.seed, "seed 3 -> 4" in settings.changes[0]) == (4, True)
    sd = load(tiny_path, device="cpu")
    run = sd.prepare("a red boat", seeds=[4], scheduler="euler_a", steps=6)
    with torch.inference_mode():
        *_, step = run.resumed(State.load(tmp_path / "two.safetensors"))
        assert run.decode(step.x_next)[0].tobytes() == Image.open(other).tobytes()
    assert Image.open(same).tobytes() != Image.open(other).tobytes()


@pytest.mark.parametrize(
    "words",
    [
        ("red AND blue :0.6", "--grammar", "a1111"),
        ("[red:blue:0.5] boat", "--grammar", "a1111"),
        ("red", "--towards", "blue:0.4", "--variation", "3:0.5"),
    ],
)
def test_words_of_every_kind(
    tiny_path: Path, tmp_path: Path, command: Command, words: tuple[str, ...]
) -> None:
    how = (*words, "--model", tiny_path, "--device", "cpu", "--steps", 4, "--seed", 1)
    whole = command("sample", *how, "--out", "whole.png")[1]
    command("sample", *how, "--state", "run.safetensors", "--stop-after", 2)
    status, path, err = command("resume", "run.safetensors", "--out", "rest.png")
    assert status == 0, err
    assert pixels(path) == pixels(whole)


def test_adapters_of_a_prompt(tiny_path: Path, tmp_path: Path, command: Command) -> None:
    unet = load(tiny_path, device="cpu").unet
    name, layer = next(each for each in unet.named_modules() if each[0].endswith("attn1.to_q"))
    key, rows = f"lora_unet_{name.replace('.', '_')}", layer.weight.shape
    factors = {f"{key}.lora_down.weight": (2, rows[1]), f"{key}.lora_up.weight": (rows[0], 2)}
    seeded = torch.Generator().manual_seed(0)
    tensors = {each: torch.randn(shape, generator=seeded) for each, shape in factors.items()}
    save_file(tensors, tmp_path / "style.safetensors")
    how = ("red <lora:style:0.8>", "--grammar", "a1111", "--lora-dir", tmp_path)
    how += ("--model", tiny_path, "--device", "cpu", "--steps", 4, "--seed", 1)
    whole = command("sample", *how, "--out", "whole.png")[1]
    plain = command("sample", "red", *how[1:], "--out", "plain.png")[1]
    assert pixels(plain) != pixels(whole)
    command("sample", *how, "--state", "run.safetensors", "--stop-after", 2)
    status, path, err = command("resume", "run.safetensors", "--out", "rest.png")
    assert status == 0, err
    assert pixels(path) == pixels(whole)


def test_what_is_refused_leaves_no_folder(
    tmp_path: Path, command: Command, stopped: Callable[..., Path]
) -> None:
    state = stopped(3)
    held = State.load(state)
    changed = replace(held, x=torch.zeros(2, 4, 8, 8), memory=())
    changed.save(tmp_path / "odd.safetensors", read(state).settings)
    for args in (("odd.safetensors",), (state, "--steps", 0), (state, "--width", 64)):
        status, _, _ = command("resume", *args, "--out", "nothing/here")
        assert status == 2
    assert not (tmp_path / "nothing").exists()
