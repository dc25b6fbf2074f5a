"""What the count names is there, and adds up."""

import pytest

from scripts import count_lines
from sdcore.schedulers import TABLE


def test_parts_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    count_lines.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    parts = {row[0]: int(row[1]) for row in rows if row and row[0] in {*count_lines.PARTS, "sum"}}
    noise, total = parts.pop("noise"), parts.pop("sum")
    assert parts.keys() == count_lines.PARTS.keys() - {"noise"}
    assert noise > 0
    assert sum(parts.values()) == total


def test_every_solver_is_counted_without_its_docstring() -> None:
    lines = count_lines.solvers()
    assert len(lines) < len(TABLE)  # options make several of one
    assert 0 < min(lines.values()) <= max(lines.values()) < 60
    assert lines["schedulers.euler::euler"] == 10
    assert count_lines.lines_of_code('def f():\n    """Said."""\n    # why\n\n    return 1\n') == {
        1,
        5,
    }
