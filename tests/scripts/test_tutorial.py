"""The tutorial: its code runs as it stands and prints what the pages say."""

import re
from pathlib import Path

import pytest

import sdcore
from scripts import tutorial

CHAPTERS = tutorial.chapters()
OF_THE_MODEL = re.compile(r"\b(sd|run|drawn|errors)\b")  # what it prints depends on the weights
CUT = {  # where a chapter asks the model often: as it stands -> fewer steps or seeds
    "05-order": {'drawn("dpmpp_2m", 50': 'drawn("dpmpp_2m", 12'},
    "07-noise": {"in (10, 20, 40, 80)": "in (2, 3, 4, 5)", "20_000": "10_000"},
    "10-comparing": {"seeds = range(8)": "seeds = range(2)"},
}


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_with_a_small_model(
    page: Path, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the code, and the numbers of what needs no model."""
    sd = sdcore.load(tiny_path, device="cpu")
    monkeypatch.setattr(sdcore, "load", lambda: sd, raising=False)
    text = page.read_text("utf-8")
    cut = text
    for whole, less in CUT.get(page.stem, {}).items():
        assert whole in cut
        cut = cut.replace(whole, less)
    printed = tutorial.run(tutorial.blocks(cut), tmp_path)
    for block, said in zip(tutorial.blocks(text), printed, strict=True):
        numbers = not OF_THE_MODEL.search(block.code)
        assert list(tutorial.differences(block.printed, said, numbers)) == []
    shown = set(re.findall(r"\(pictures/(.*?)\)", text))
    assert shown == {path.name for path in tmp_path.iterdir()}
    assert shown <= {path.name for path in tutorial.PICTURES.iterdir()}


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_with_the_bundled_model(page: Path, tmp_path: Path) -> None:
    examples = tutorial.blocks(page.read_text("utf-8"))
    for block, said in zip(examples, tutorial.run(examples, tmp_path), strict=True):
        assert list(tutorial.differences(block.printed, said)) == []


def test_every_picture_is_shown() -> None:
    text = "".join(page.read_text("utf-8") for page in CHAPTERS)
    pictures = list(tutorial.PICTURES.iterdir())
    assert {path.name for path in pictures} == set(re.findall(r"\(pictures/(.*?)\)", text))
    assert sum(path.stat().st_size for path in pictures) < 1_500_000


def test_the_contents_lead_to_every_chapter() -> None:
    contents = (tutorial.FOLDER / "index.md").read_text("utf-8")
    assert re.findall(r"\((\d\d-[^)]*)\)", contents) == [page.name for page in CHAPTERS]


def test_what_a_page_shows_is_compared_number_by_number() -> None:
    shown = "error 1.23e-05 after 20 steps\n"
    assert not list(tutorial.differences(shown, "error 1.24e-05  after 20 steps\n"))
    assert list(tutorial.differences(shown, "error 1.9e-05 after 20 steps\n"))
    assert list(tutorial.differences(shown, "error 1.23e-05 after 40 steps\n"))
    assert list(tutorial.differences(shown, "off by 1.23e-05 after 20 steps\n"))
    assert not list(tutorial.differences(shown, "error 7 after 3 steps\n", numbers=False))


def test_what_is_printed_goes_below_its_block() -> None:
    page = "a\n```python\nprint(1)\n```\nb\n```python\nx = 1\n```\n\n```text\nold\n```\nc\n"
    done = tutorial.with_printed(page, ["1\n", ""])
    assert done == "a\n```python\nprint(1)\n```\n\n```text\n1\n```\nb\n```python\nx = 1\n```\nc\n"
    assert tutorial.with_printed(done, ["1\n", ""]) == done
