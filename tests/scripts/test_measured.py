"""Kept figures: of one state of the code and one machine alone."""

import json
from pathlib import Path

import pytest

from scripts import quantization
from scripts.measured import digest


def test_a_state_is_of_every_file_and_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.py").write_text("x = 1")
    before = digest(tmp_path, "one")
    assert digest(tmp_path, "one") == before != digest(tmp_path, "another")
    (tmp_path / "a" / "b.txt").write_text("no code")
    assert digest(tmp_path, "one") == before
    (tmp_path / "a" / "b.py").write_text("x = 2")
    changed = digest(tmp_path, "one")
    (tmp_path / "a" / "b.py").rename(tmp_path / "b.py")
    assert len({before, changed, digest(tmp_path, "one")}) == 3


def test_a_quantized_row_of_other_code_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure(type: str, layout: str, seeds: int, folder: Path) -> quantization.Row:
        measured.append(type)
        return quantization.Row(type, layout, len(measured), 8.5, (40.0,), 1.0, 1.0, 1.0)

    monkeypatch.setattr(quantization, "measured", measure)
    rows = []
    for code in ("one", "one", "another"):
        monkeypatch.setattr(quantization, "state", lambda code=code: code)
        rows.append(quantization.kept("q8_0", "comfy", 8, tmp_path).size)
    assert rows == [1, 1, 2]
    assert len([json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]) == 2
