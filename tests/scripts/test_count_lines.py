"""The run between noise and latents is read in so many lines, and each solver in so many."""

import pytest

from scripts import count_lines
from sdcore.schedulers import TABLE

LOOP = ("sampling.py", "denoiser.py", "guidance/cfg.py", "noise.py", "schedulers/solvers/euler.py")


def test_the_run_is_read_in_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    run, schedule = (counted.rows() for counted in count_lines.counts())
    assert {*LOOP, "process.py"} <= run.keys()
    assert "schedulers/spacing/plan.py" in schedule
    declared, guards, computing = map(sum, zip(*run.values(), strict=True))
    assert computing + guards <= 180
    count_lines.main()
    out = capsys.readouterr().out
    total = [line for line in out.splitlines() if line.startswith("  sum")]
    assert total[0].split()[1:] == [str(n) for n in (declared + guards + computing, declared,
                                                     guards, computing)]  # fmt: skip


def test_nothing_is_counted_that_the_run_does_not_touch() -> None:
    run, _ = count_lines.counts()
    source = (count_lines.PACKAGE / "process.py").read_text().splitlines()
    counted = {source[line - 1].strip() for line in run.lines[count_lines.PACKAGE / "process.py"]}
    assert "def from_eps(raw: Tensor, x: Tensor, sigma: float | Tensor) -> Pair:" in counted
    assert "def from_v(raw: Tensor, x: Tensor, sigma: float | Tensor) -> Pair:" not in counted


def test_every_solver_is_counted_without_its_docstring() -> None:
    lines = count_lines.solvers()
    assert len(lines) < len(TABLE)  # options make several of one
    assert 0 < min(lines.values()) <= max(lines.values()) < 60
    assert lines["schedulers.solvers.euler::euler"] == 11
    assert count_lines.lines_of_code('def f():\n    """Said."""\n    # why\n\n    return 1\n') == {
        1,
        5,
    }
