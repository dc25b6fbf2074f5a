"""Filters: what they may do, what becomes of it, and what is said of those that misbehave."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdcore.errors import InputError
from sdcore.filters import filtered, open_filters
from sdcore.images import read_settings
from tests.cli.shell import Shell, pixels
from tests.test_marks import SETTINGS

PICTURES = [Image.new("RGB", (16, 8), color) for color in ("red", "green", "blue")]
MINE = """
def check(images, **info):
    assert len(info["settings"]) == len(images)
    return [image.rotate(180) for image in images], ["1" in str(s.seed) for s in info["settings"]]

def least(images, least=3, **info):
    return images, [least > 5] * len(images)

def drop(images, **info):
    return [None] * len(images), [True] * len(images)

def raises(images, **info):
    return 1 / 0

def few(images, **info):
    return images[:1], [False]

def small(images, **info):
    return [image.resize((4, 4)) for image in images], [False] * len(images)

def plain(images, **info):
    return images

def words(images, **info):
    return images, ["no"] * len(images)

def arrays(images, **info):
    return [[0] for image in images], [False] * len(images)

def nothing(images):
    return images, [False] * len(images)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    return "mine.py"


def test_flags_and_what_was_asked_are_in_the_settings(mine: str) -> None:
    filters = open_filters((mine, f"{mine}:least,least=9", f"{mine}:least"))
    done = list(filtered(PICTURES, [SETTINGS] * 3, filters))
    for (picture, settings), old in zip(done, PICTURES, strict=True):
        assert picture is not None
        assert picture.tobytes() == old.rotate(180).tobytes()
        assert settings.filters == ("mine.py", "mine.py:least,least=9", "mine.py:least")
        assert settings.flags == ("mine.py:least",)
        assert [each.split()[1] for each in settings.digests] == ["mine.py"]
    assert list(filtered(PICTURES, [SETTINGS] * 3, ())) == [(p, SETTINGS) for p in PICTURES]


def test_any_callable_is_a_filter() -> None:
    def dark(images: Any, **info: Any) -> Any:
        return images, np.array([np.asarray(image).mean() < 60 for image in images])

    done = [settings for _, settings in filtered(PICTURES, [SETTINGS] * 3, [dark])]
    assert [each.flags for each in done] == [(), ("dark",), ()]  # 0, 128, 0 of PIL's green
    assert done[0].filters == ("dark (in memory)",)


def test_what_is_dropped_is_not_shown_to_the_next() -> None:
    seen: list[int] = []

    def red(images: Any, **info: Any) -> Any:
        flags = [image.getpixel((0, 0))[0] == 255 for image in images]
        return [None if f else i for i, f in zip(images, flags, strict=True)], flags

    def count(images: Any, **info: Any) -> Any:
        seen.append(len(images))
        return images, [True] * len(images)

    done = list(filtered(PICTURES, [SETTINGS] * 3, [red, count, red]))
    assert seen == [2]
    assert [picture is None for picture, _ in done] == [True, False, False]
    assert [each.flags for _, each in done] == [("red",), ("count",), ("count",)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "mine.py, line 13: ZeroDivisionError: division by zero"),
        ("few", "the filter mine.py:few returns 1 images and 1 flags for 3: a filter returns"),
        ("small", "the filter mine.py:small makes 4x4 of a picture of 16x8: a filter returns"),
        ("plain", "the filter mine.py:plain returns "),
        ("words", "the filter mine.py:words returns "),
        ("arrays", "the filter mine.py:arrays returns list as an image"),
        ("nothing", "unexpected keyword argument 'settings'"),
    ],
)
def test_a_filter_that_misbehaves_is_one_line(mine: str, name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        list(filtered(PICTURES, [SETTINGS] * 3, open_filters((f"{mine}:{name}",))))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_filter_of_a_program_is_blamed_by_its_line() -> None:
    def broken(images: Any, **info: Any) -> Any:
        raise KeyError("x")

    with pytest.raises(InputError, match=r"test_filters.py, line \d+: KeyError: 'x'"):
        list(filtered(PICTURES, [SETTINGS] * 3, [broken]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine", "a filter is named by its file"),
        ("other.py", "no filter file 'other.py'"),
        ("mine.py:none", "mine.py has no filter named none"),
        ("mine.py:nothing,most=3", "has no option 'most'"),
    ],
)
def test_filters_that_are_none(mine: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_filters((text,))


def test_the_command(shell: Shell) -> None:
    Path("mine.py").write_text(MINE)
    plain = shell.sample("red", "--seed", "0-1")
    drawn = shell.sample("red", "--seed", "0-1", "--batch", 2, "--filter", "mine.py")
    assert (drawn.status, len(drawn.paths)) == (0, 2)
    assert "'red', seed 1: flagged by mine.py:check\n" in drawn.err
    for old, new in zip(plain.paths, drawn.paths, strict=True):
        assert pixels(new) == Image.open(old).rotate(180).tobytes()
    assert [read_settings(path).flags for path in drawn.paths] == [(), ("mine.py:check",)]
    # Nothing that a picture names is run.
    again = shell("rerun", drawn.paths[1], "--out", "again.png")
    assert "went through the filter mine.py: name it to have it look again" in again.err
    assert pixels(again.paths[0]) == pixels(plain.paths[1])
    same = shell("rerun", drawn.paths[1], "--out", "same.png", "--filter", "mine.py")
    assert Path("same.png").read_bytes() == drawn.paths[1].read_bytes()
    assert "went through" not in same.err


def test_what_is_dropped_is_not_written(shell: Shell) -> None:
    Path("mine.py").write_text(MINE)
    drawn = shell.sample("red", "--seed", 1, "--filter", "mine.py:drop", "--sheet", "--steps-sheet")
    assert (drawn.status, drawn.paths) == (0, [])
    assert "'red', seed 1: flagged by mine.py:drop; it is not written" in drawn.err
    assert list(Path("out").iterdir()) == []


def test_nothing_is_drawn_before_the_filter_is_there(shell: Shell) -> None:
    result = shell.sample("red", "--filter", "none.py")
    assert (result.status, result.err) == (2, "sdcore: no filter file 'none.py'\n")
    assert not Path("out").exists()
