"""`sdcore bench`, on a model of no size."""

import json
from pathlib import Path

import pytest

from sdcore.cli import main
from sdcore.cli.bench import table
from sdcore.engine.bench import Timing, ratios


def test_a_ratio_is_of_the_same_round() -> None:
    assert ratios(Timing(9, (1, 10, 2)), Timing(9, (2, 20, 8))) == (0.5, 0.25, 0.5)


def test_each_engine_is_timed_in_a_process_of_its_own(
    tiny_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--device", "cpu", "--rounds", "2", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--model", str(tiny_path), *flags])
    assert ended.value.code == 0
    out = json.loads(capsys.readouterr().out)
    timings = out["timings"]
    assert {len(t["calls"]) for by in timings.values() for t in by.values()} == {2}
    assert {"plain"} <= timings["step"].keys() <= {"plain", "auto"}
    assert all(peak is None or peak > 1e8 for peak in out["peak_bytes"].values())
    told = {"torch": "2", "threads": 1, "device": None, "why": None, "settings": out["settings"]}
    by = {"plain": Timing(1.0, (1.0, 4.0)), "auto": Timing(2.0, (0.5, 1.0))}
    lines = table("tiny", 1, told, {"step": by}, {"plain": 10**9, "auto": 5 * 10**8})
    assert "| step, plain | 1000.0 ms | 2500.0 ms | 1 |" in lines
    assert "| step, auto | 2000.0 ms | 750.0 ms | 0.38 (0.25 to 0.50) |" in lines
    assert "| peak memory of the process, auto | | 500 MB | 0.50 |" in lines


def test_what_is_wrong_is_said_in_a_line(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--model", "picturebok", "--device", "cpu"])
    assert ended.value.code == 2
    assert "picturebok" in capsys.readouterr().err
