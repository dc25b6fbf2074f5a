"""A picture carried up to its noise, and drawn again from there, as a user types it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from sdcore.cli import main
from sdcore.cli.state import Unfinished
from sdcore.images import read_settings
from sdcore.inversion import Recorded
from sdcore.loading import load
from sdcore.sampling import State
from sdcore.state_file import read

Printed = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Printed:
    """Runs `sdcore` in a folder with a picture: status, lines, stderr."""
    monkeypatch.chdir(tmp_path)
    picture = Image.new("RGB", (32, 32), (60, 120, 200))
    ImageDraw.Draw(picture).ellipse((6, 6, 24, 24), fill=(220, 60, 40))
    picture.save("boat.png")

    def run(*args: object) -> tuple[int, list[str], str]:
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in args])
        out, err = capfd.readouterr()
        return int(str(caught.value.code)), out.splitlines(), err

    return run


def test_every_method(
    printed: Printed, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = ("invert", "boat.png", "--model", tiny_path, "--device", "cpu", "--steps", 8)
    errors = {}
    for method in ("plain", "fixed-point", "exact", "edit-friendly"):
        out = f"{method}.safetensors"
        status, lines, _ = printed(*shared, "--prompt", "red", "--method", method, "--out", out)
        figures = {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines[1:])}
        assert (status, lines[0]) == (0, out)
        assert ("residual" in figures) == (method == "fixed-point")
        errors[method] = figures["round trip"]
        kept = Path(out).read_bytes()
        for words in ("green", "blue"):  # an inversion is there for as many edits as one likes
            status, lines, err = printed("resume", out, "--prompt", words)
            assert (status, err.count("Error"), Path(out).read_bytes()) == (0, 0, kept)
        assert read_settings(Path(lines[0])).prompt == "blue"
    assert errors["exact"] < 1e-4
    assert errors["exact"] < errors["fixed-point"] <= errors["plain"]
    monkeypatch.setenv("HOME", str(tmp_path))
    for out in ("boat.png", "~/boat.png"):
        status, _, err = printed(*shared, "--method", "exact", "--out", out)
        assert (status, "boat.png is there already" in err) == (2, True)


def test_found_draws_are_gone_on_with(printed: Printed, tiny_path: Path) -> None:
    """With the same words edit-friendly noise draws the picture that inversion printed of."""
    printed("invert", "boat.png", "--model", tiny_path, "--device", "cpu", "--steps", 6,
            "--prompt", "red", "--method", "edit-friendly", "--out", "up.safetensors")  # fmt: skip
    held = read("up.safetensors")
    assert len(held.noise) == 5  # the last step draws none
    _, lines, _ = printed("resume", "up.safetensors")
    sd = load(tiny_path, device="cpu", engine="plain")
    run = sd.prepare("red", scheduler="euler_a", steps=6, cfg=1.0)
    again = replace(run, noise=Recorded(held.noise)).resumed(State(held.x))
    with torch.inference_mode(), Image.open(lines[0]) as drawn:
        for step in again:
            if step.index == 2:
                Unfinished("midway.safetensors").keep(again, step)
        assert again.decode(step.x_next)[0].tobytes() == drawn.tobytes()
        *_, other = run.resumed(State(held.x))
    assert not torch.equal(step.x_next, other.x_next)
    _, (path,), _ = printed("resume", "midway.safetensors")  # the draws that are left come along
    assert Image.open(path).tobytes() == again.decode(step.x_next)[0].tobytes()
    kept = Path("up.safetensors").read_bytes()
    for more in (("--steps", 3), ("--scheduler", "euler_a", "--spacing", "karras")):
        status, _, err = printed("resume", "up.safetensors", *more)
        assert (status, "and is asked for from" in err, err.count("\n")) == (2, True, 1)
    assert Path("up.safetensors").read_bytes() == kept


def test_likelihood(printed: Printed, tiny_path: Path) -> None:
    asked = ("likelihood", "boat.png", "--model", tiny_path, "--device", "cpu", "--steps", 6)
    status, lines, _ = printed(*asked)
    nats, bits = (float(line.split()[1]) for line in lines[1:])
    assert (status, [line.split()[0] for line in lines]) == (0, ["sigma", "nats", "bits"])
    assert bits == pytest.approx(-nats / (4 * 4 * 4) / 0.693147, rel=1e-4)
    assert printed(*asked)[1] == lines
    status, _, err = printed(*asked, "--probes", 0)
    assert (status, "probes are at least 1" in err) == (2, True)
