"""When memory runs out: the run goes on where it was, in a leaner mode, and says so."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sdcore.cli.commands import cli
from sdcore.images import read_settings
from sdcore.models import VAE, UNet
from tests.allocators import failing


@pytest.fixture
def draw(tiny_path: Path, tmp_path: Path) -> Callable[[str], Result]:
    def run(name: str, *more: str) -> Result:
        args = ["sample", "a red house", "--model", str(tiny_path), "--steps", "3", "--seed", "1"]
        args += [
            "--device",
            "cpu",
            "--memory",
            "fast",
            "--engine",
            "plain",
            "--out",
            str(tmp_path / name),
            *more,
        ]
        return CliRunner().invoke(cli, args)

    return run


def test_the_loop_goes_on_where_it_was(
    draw: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert draw("whole.png").exit_code == 0
    seen = failing(monkeypatch, UNet, "forward", {1, 3})
    done = draw("lean.png")
    assert done.exit_code == 0, done.output
    assert len(seen) == 3 + 2  # no step is made twice
    assert "out of memory; going on with --memory sliced" in done.stderr
    assert "out of memory; going on with --memory tiled" in done.stderr
    lean, whole = tmp_path / "lean.png", tmp_path / "whole.png"
    assert (read_settings(lean).memory, read_settings(lean).asked_memory) == ("tiled", "fast")
    from PIL import Image

    with Image.open(lean) as a, Image.open(whole) as b:
        assert a.tobytes() == b.tobytes()


def test_the_vae_is_tried_again(
    draw: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, VAE, "decode", range(4))
    done = draw("picture.png")
    assert done.exit_code == 0, done.output
    assert read_settings(tmp_path / "picture.png").memory == "low"


def test_never_a_smaller_picture(
    draw: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, UNet, "forward", range(99))
    done = draw("picture.png")
    assert "out of memory on cpu for 32x32, even with --memory low: ask for" in str(done.exception)
    assert not (tmp_path / "picture.png").exists()


def test_a_smaller_picture_where_it_is_allowed(
    draw: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, UNet, "forward", range(5))  # one for each mode
    done = draw("picture.png", "--fallback", "size", "--width", "128", "--height", "96")
    assert done.exit_code == 0, done.output
    assert "out of memory; drawing 96x72 instead" in done.stderr
    settings = read_settings(tmp_path / "picture.png")
    assert (settings.width, settings.height, settings.asked) == (96, 72, (128, 96))
    assert settings.memory == "low"


def test_fewer_steps_would_not_help(draw: Callable) -> None:
    said = str(draw("picture.png", "--fallback", "size,steps").exception)
    assert "not 'size,steps': fewer steps need no less memory" in said


def test_the_pictures_after_it_are_drawn_as_leanly(
    draw: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, UNet, "forward", {1})
    assert draw("folder", "--count", "2").exit_code == 0
    both = sorted((tmp_path / "folder").glob("*.png"))
    assert [read_settings(path).memory for path in both] == ["sliced", "sliced"]


def test_other_errors_are_not_swallowed(draw: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(UNet, "forward", broken)
    assert "shapes differ" in str(draw("picture.png").exception)
