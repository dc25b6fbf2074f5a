"""docs/orders.md, changes.md and parity.md name everything that there is now."""

from itertools import product
from pathlib import Path

import pytest

from scripts import inversions, resumes
from sdcore.compare.quirks import QUIRKS
from sdcore.lab.change import silent
from sdcore.schedulers import SPACINGS, TABLE

DOCS = Path(__file__).parents[2] / "docs"


def rows(name, title=None):
    """The table rows of a page as lists of cells, or only those under one title."""
    text = (DOCS / name).read_text()
    if title is not None:
        text = text.split(f"\n## {title}")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_scheduler_has_its_order():
    found = {
        row[0]: row for row in rows("orders.md")[2:] if row[-1] in ("the flow", "the variance")
    }
    assert set(found) == {entry.name for entry in TABLE}, "run `make docs`"
    for entry in TABLE:
        claims, measured, nfe = found[entry.name][1:4]
        assert (claims, nfe) == (str(entry.order or "none"), str(entry.nfe)), "run `make docs`"
        assert float(measured) >= entry.order - 0.15 or entry.order == 0


def test_every_solver_has_its_changes():
    found = {row[0] for row in rows("changes.md")[2:]}
    assert found == {entry.name for entry in TABLE if silent(entry.name)}, "run `make docs`"


def test_every_stochastic_scheduler_has_its_variance():
    found = {row[0] for row in rows("orders.md", "With noise")[2:]}
    assert found == {entry.name for entry in TABLE if entry.stochastic}, "run `make docs`"


def test_every_spacing_has_its_last_interval():
    found = {row[0] for row in rows("orders.md", "The last interval")[2:]}
    assert found == set(SPACINGS), "run `make docs`"


def test_parity_names_every_class_and_quirk():
    write_docs = pytest.importorskip("scripts.write_docs")
    compared = {e.name for e in TABLE if write_docs.diffusers_fields(e) is not None}
    assert {row[0] for row in rows("parity.md", "diffusers")[2:]} == compared, "run `make docs`"
    quirks = {row[0].strip("`"): row for row in rows("parity.md", "Where")[2:]}
    assert set(quirks) == {quirk.name for quirk in QUIRKS}, "run `make docs`"
    for quirk in QUIRKS:
        assert quirks[quirk.name][2] == f"{quirk.number:g}", "run `make docs`"


def test_every_inversion_has_its_errors():
    """And the exact one is exact; the likelihoods of the fewest steps are worked out anew."""
    trips = rows("inversion.md")[: 2 + len(inversions.METHODS)]
    assert trips[0][2:] == [f"{n} steps" for n in inversions.STEPS], "run scripts.inversions"
    assert [row[:2] for row in trips[2:]] == [
        [inversions.name_of(row), row[1]] for row in inversions.METHODS
    ], "run scripts.inversions"
    exact = next(row for row in trips if row[0] == "exact")
    assert max(float(cell) for cell in exact[2:]) <= 1e-4
    told = rows("inversion.md", "Likelihood")[2:]
    each = product(inversions.PATHS, inversions.SOLVERS, map(str, inversions.COUNTS))
    assert [tuple(row[:3]) for row in told] == list(each), "run scripts.inversions"
    now = list(inversions.likelihoods(inversions.COUNTS[:1]))
    coarse = [row for row in told if row[2] == now[0][2]]
    assert [row[:4] for row in coarse] == [row[:4] for row in now]
    for row, anew in zip(coarse, now, strict=True):  # of which two digits are printed
        assert [*map(float, row[4:])] == pytest.approx([*map(float, anew[4:])], rel=0.06)


def test_every_solver_is_gone_on_with_to_the_bit(tmp_path):
    told = rows("resume.md")[2:]
    assert [row[0] for row in told] == [entry.name for entry in TABLE], "run scripts.resumes"
    assert {cell for row in told for cell in row[1:]} == {"0"}
    for name in ("dpmpp_2m_sde", "unipc"):
        assert resumes.row(next(e for e in TABLE if e.name == name), tmp_path) == (name, 0, 0, 0)
