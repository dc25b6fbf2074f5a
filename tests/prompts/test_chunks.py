"""Long prompts in chunks, laid out by hand."""

from pathlib import Path

import pytest

from sdcore.prompts import Tokenizer, chunked, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_path: Path) -> Tokenizer:
    return load_tokenizer(tiny_path / "tokenizer")


def words(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    """The tokens of every chunk, without its frame."""
    rows = []
    for chunk in chunked(text, tokenizer, "a1111"):
        assert len(chunk.ids) == len(chunk.weights) == 77
        end = chunk.ids.index(tokenizer.end)
        assert chunk.ids[0] == tokenizer.start
        assert set(chunk.ids[end + 1 :]) <= {tokenizer.pad}
        rows.append(list(chunk.ids[1:end]))
    return rows


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return [i for unit in tokenizer.units(text) for i in unit.ids]


@pytest.mark.parametrize("text", ["", "red", "red " * 75, "A red, blue house!"])
def test_what_fits_is_one_chunk_as_ever(tokenizer: Tokenizer, text: str) -> None:
    plain, weighted = (chunked(text, tokenizer, grammar) for grammar in ("plain", "a1111"))
    assert plain == weighted
    assert plain[0].ids == tokenizer(text).ids
    assert plain[0].plain


@pytest.mark.parametrize(("count", "sizes"), [(76, [75, 1]), (150, [75, 75]), (151, [75, 75, 1])])
def test_chunks_are_filled_in_turn(tokenizer: Tokenizer, count: int, sizes: list[int]) -> None:
    red = ids(tokenizer, "red")
    assert words(tokenizer, "red " * count) == [red * size for size in sizes]


@pytest.mark.parametrize(("after", "moved"), [(19, 19), (18, 18), (20, 0), (1, 1), (0, 0)])
def test_a_full_chunk_ends_at_a_comma_that_is_near(
    tokenizer: Tokenizer, after: int, moved: int
) -> None:
    before = 75 - after - 1
    text = "red " * before + "," + " blue" * after + " house" * 3
    red, comma, blue, house = (ids(tokenizer, w) for w in ("red", ",", "blue", "house"))
    kept = after - moved
    assert words(tokenizer, text) == [
        red * before + comma + blue * kept,
        blue * moved + house * 3,
    ]


def test_break_begins_a_chunk(tokenizer: Tokenizer) -> None:
    red, blue = ids(tokenizer, "red"), ids(tokenizer, "blue")
    assert words(tokenizer, "red BREAK blue") == [red, blue]
    assert words(tokenizer, "red BREAK BREAK blue") == [red, [], blue]


def test_weights_stand_at_their_tokens(tokenizer: Tokenizer) -> None:
    (chunk,) = chunked("red (blue house:1.5) boat", tokenizer, "a1111")
    assert chunk.weights == (1.0, 1.0, 1.5, 1.5, 1.0) + (1.0,) * 72
    assert chunk.ids == tokenizer("red blue house boat").ids
    (plain,) = chunked("red (blue:1.5)", tokenizer, "plain")
    assert plain.plain
    assert plain.ids == tokenizer("red (blue:1.5)").ids
