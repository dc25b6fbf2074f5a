"""`sdcore bench`, on a model of no size."""

import json
from pathlib import Path

import pytest

from sdcore.cli import main
from sdcore.engine.bench import Timing, ratios


def test_a_ratio_is_of_the_same_round() -> None:
    assert ratios(Timing(9, (1, 10, 2)), Timing(9, (2, 20, 8))) == (0.5, 0.25, 0.5)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_both_engines_are_timed(
    tiny_path: Path, capsys: pytest.CaptureFixture, flags: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--model", str(tiny_path), "--device", "cpu", "--rounds", "2", *flags])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    if flags:
        timings = json.loads(out)["timings"]
        assert {len(t["calls"]) for by in timings.values() for t in by.values()} == {2}
        assert {"plain"} <= timings["step"].keys() <= {"plain", "auto"}
    else:
        assert "| step, plain |" in out
        assert "| decode, plain |" in out
