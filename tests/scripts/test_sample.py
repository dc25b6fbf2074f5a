"""The readable script draws what the command draws."""

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from sdcore.loading import load

SCRIPT = Path(__file__).parents[2] / "scripts" / "sample.py"


def test_the_script_draws_the_pipelines_picture(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sample.py", "a red boat", "3", str(tiny_path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    run = load(tiny_path, device="cpu").prepare(
        "a red boat", seeds=[3], scheduler="dpmpp_2m", spacing="karras"
    )
    picture = run.decode([step.x_next for step in run][-1])[0]
    with Image.open("sample.png") as drawn:
        assert drawn.tobytes() == picture.tobytes()


def test_the_script_stays_short() -> None:
    code = [line for line in SCRIPT.read_text().splitlines() if line.strip()]
    assert len(code) <= 60
