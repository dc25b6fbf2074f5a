"""What the README shows, runs as it stands."""

import re
from pathlib import Path

import pytest

import sdcore

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_loop_and_ones_own_solver(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loop, solver = re.findall(r"```python\n(.*?)```", README, re.S)
    load = sdcore.load
    monkeypatch.setattr(sdcore, "load", lambda: load(tiny_path, device="cpu"), raising=False)
    exec(compile(loop, "README.md", "exec"), {})
    assert Path("house.png").is_file()
    Path("mine.py").write_text(solver)
    run = load(tiny_path, device="cpu").prepare("red", scheduler="mine.py", steps=2)
    assert len(list(run)) == 2


def test_files_that_are_named_are_there() -> None:
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / target).exists(), target
