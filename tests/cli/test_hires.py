"""Two passes, as a user types them."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from sdcore.images import read_settings
from sdcore.models import UNet
from tests.cli.shell import Shell, pixels

TWO = ("--seed", 1, "--hires", 2, "--hires-strength", 0.6, "--hires-steps", 4)


def test_drawn_and_drawn_again(shell: Shell) -> None:
    done = shell.sample("red", *TWO, "--steps-sheet", "--scheduler", "euler_a")
    (path, sheet) = done.paths
    assert done.status == 0, done.err
    assert "4 of 6 steps, 8 NFE" in done.err
    settings = read_settings(path)
    with Image.open(path) as picture, Image.open(sheet) as strip:
        assert picture.size == (64, 64)
        assert strip.height > 2 * 96  # a row for each pass
    assert (settings.width, settings.hires, settings.hires_steps) == (32, 2, 4)
    again = shell("rerun", path, "--device", "cpu")
    assert (again.status, pixels(again.paths[0])) == (0, pixels(path))
    off = shell("rerun", path, "--hires", 1)
    plain = shell.sample("red", "--seed", 1, "--scheduler", "euler_a")
    assert pixels(off.paths[0]) == pixels(plain.paths[0])
    other = shell("rerun", path, "--hires-upscaler", "lanczos")
    assert pixels(other.paths[0]) != pixels(path)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_stopped_in_either_pass(shell: Shell, tmp_path: Path, after: int) -> None:
    whole = shell.sample("red", *TWO, "--scheduler", "dpmpp_2m_sde")
    state = tmp_path / f"state{after}.safetensors"
    more = ("--state", state, "--stop-after", after)
    assert shell.sample("red", *TWO, "--scheduler", "dpmpp_2m_sde", *more).status == 0
    done = shell("resume", state, "--device", "cpu")
    assert done.status == 0, done.err
    assert f"{4 - after} of 6 steps" in done.err
    assert pixels(done.paths[0]) == pixels(whole.paths[0])


def test_memory_runs_out_in_the_second(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    how = (*TWO, "--memory", "fast", "--engine", "plain")
    real, calls = UNet.forward, []

    def failing(self: UNet, *args: object, **more: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(UNet, "forward", failing)
    done = shell.sample("red", *how, "--cfg", 1)
    assert (done.status, len(calls)) == (0, 2 + 2 + 1), done.err
    assert "going on with --memory sliced" in done.err
    with Image.open(done.paths[0]) as picture:
        assert picture.size == (64, 64)
    assert read_settings(done.paths[0]).memory == "sliced"
