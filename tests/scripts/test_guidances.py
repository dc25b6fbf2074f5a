"""scripts/guidances.py: every guidance is in it, it goes on where it was stopped, and its page."""

from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from scripts import guidances
from scripts.adherence import descriptions
from scripts.guidance_sweeps import OFF, PLAN, SWEEPS, composed, recoloured
from scripts.guidances import Row, add, kept, missing, page, spread
from sdcore.guidance import GUIDANCES, Composed, branch_names, resolve, write

HOW = {"prompts": 2, "seeds": [0, 1], "steps": 10}


def row(name, written, number, how=HOW):
    right = {"object": 0.5, "colour": 0.75, "all right": 0.25}
    return Row(name, written, number, 20, right, 0.7, how)


def test_every_guidance_is_tried_weak_to_strong():
    found = set()
    for sweep in SWEEPS:
        assert len(sweep.numbers) == 4
        assert list(sweep.numbers) == sorted(sweep.numbers)
        if sweep.name != "composed":
            written = [sweep.form(number) for number in sweep.numbers]
            found |= {part.split(":")[0] for text in written for part in text.split("+")}
            assert len({write(resolve(text)) for text in written}) == 4
    assert found | {"composed"} == set(GUIDANCES)
    assert branch_names(resolve(OFF.form(1)), [1.0]) == ("cond",)
    assert len(set(PLAN)) == 1 + 4 * len(SWEEPS)


def test_composed_and_negative_are_told_words_of_the_prompts_own():
    for asked in descriptions(4, held_out=True):
        parts = composed(asked, 5.0)
        assert isinstance(parts, Composed)
        assert len(parts.prompts) == len(asked.things)
        assert sum(parts.weights) == pytest.approx(1)
        assert all(thing.colour in text for thing, text in
                   zip(asked.things, parts.prompts, strict=True))  # fmt: skip
        other = recoloured(asked)
        assert asked.things[0].object in other
        assert asked.things[0].colour not in other


def test_spread_is_the_distance_between_seeds():
    latents = torch.randn(3, 2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert spread(latents) == pytest.approx(2**0.5, rel=0.03)
    assert spread(latents[:, :1].expand(-1, 2, -1, -1, -1)) == 0
    moved = torch.stack([latents[:, 0], latents[:, 0] + 1, latents[:, 0] + 3], dim=1)
    assert spread(moved) == pytest.approx((1 + 3 + 2) / 3)


def test_it_goes_on_where_it_was_stopped(tmp_path):
    file = tmp_path / "rows.jsonl"
    first, second = row("off", "cfg:scale=1", 1), row("cfg", "cfg:scale=12", 12)
    add(file, first)
    file.write_text(file.read_text() + '{"name": "cfg", "writ')  # stopped in the middle of a line
    assert kept(file, HOW) == [first]
    add(file, second)
    add(file, row("cfg", "cfg:scale=4", 4, HOW | {"steps": 20}))
    rows = kept(file, HOW)
    assert rows == [first, second]
    assert [(sweep.name, number) for sweep, number in missing(rows)] == [
        (sweep.name, number) for sweep, number in PLAN[2:]
    ]


def test_the_page_says_what_was_drawn_and_what_is_left(tmp_path):
    rows = [row("cfg", "cfg:scale=4", 4), row("renderer", "", 0), row("cfg", "cfg:scale=2", 2)]
    text = page(rows, HOW)
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in table[1:]] == ["| renderer", "| cfg", "| cfg"]
    assert table[2] == "| cfg | `cfg:scale=2` | 20 | 50 | 75 | 25 | 0.70 |"
    assert "4 pictures a row (2 held-out prompts, seeds 0, 1), 10 steps of euler" in text
    assert f"{len(PLAN) - 2} of {len(PLAN)} rows are not drawn yet" in text
    full = [row("off", "", 1), *(replace(rows[0], name=s.name, number=n) for s, n in PLAN[1:])]
    assert "not drawn yet" not in page(full, HOW)
    pytest.importorskip("matplotlib")
    guidances.plot(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_without_matplotlib_it_says_so_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = CliRunner().invoke(guidances.main, ["--docs", str(tmp_path), "--now"])
    assert found.exit_code != 0
    assert found.output.strip() == "Error: plots need matplotlib: pip install 'sdcore[plot]'"
    assert not list(tmp_path.iterdir())
