"""Prompts that stand for several."""

from pathlib import Path

import pytest

from sdcore.errors import InputError
from sdcore.prompts.wildcards import MOST, every, one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "colours.txt").write_text("# of things\nred\n\nblue\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "things.txt").write_text("__colours__ {cat|dog}\nboat\n")
    (tmp_path / "loop.txt").write_text("a __loop__")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    return tmp_path


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("a red house", ["a red house"]),
        ("a {red|blue} house", ["a red house", "a blue house"]),
        ("{a|b}{1|2}", ["a1", "a2", "b1", "b2"]),
        ("{a|{b|c} d}!", ["a!", "b d!", "c d!"]),
        ("a {big |}cat", ["a big cat", "a cat"]),
        ("{a|a}", ["a"]),
        ("{a}", ["a"]),
        ("a {b|c", ["a {b|c"]),
        ("a} | b", ["a} | b"]),
        (r"\{a|b\}", ["{a|b}"]),
        ("__colours__ __x", ["red __x", "blue __x"]),
        (r"\__colours__", ["__colours__"]),
        ("snake_case __ a_b", ["snake_case __ a_b"]),
        ("__deep/things__", ["red cat", "red dog", "blue cat", "blue dog", "boat"]),
        ("(red:1.2) [a|b]", ["(red:1.2) [a|b]"]),
    ],
)
def test_every(folder: Path, prompt: str, texts: list[str]) -> None:
    assert every(prompt, folder) == texts
    assert {one(prompt, folder, seed) for seed in range(40)} == set(texts)


def test_a_seed_chooses_the_same_one_for_ever(folder: Path) -> None:
    assert [one("{a|b|c|d} {a|b|c|d}", folder, seed) for seed in (0, 1, 2, -1)] == [
        "a d",  # the first 8 bytes of sha256("0 1") and of sha256("0 2"), modulo 4
        "d b",
        "b d",
        "a b",
    ]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("__nothing__", "needs .*nothing.txt, which cannot be read"),
        ("__../x__", "leads out of"),
        ("__empty__", "no line to choose"),
        ("__loop__", "files name each other"),
        ("{a|b}" * 14, f"more than {MOST}"),
        ("{" * 3000 + "}" * 3000, "hundreds of choices"),
    ],
)
def test_what_is_refused(folder: Path, prompt: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        every(prompt, folder)
