"""The A1111 grammar: what its documentation promises, and that no text brings it down."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcore.errors import InputError
from sdcore.prompts import at_step, switches, weigh

ALPHABET = st.text(st.sampled_from("ab ()[]:.15\\,|"), max_size=24)


def parts(text: str) -> list[tuple[str | None, float]]:
    return [(p.text, round(p.weight, 6)) for p in weigh(text)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("a red house", [("a red house", 1)]),
        ("a (red) house", [("a ", 1), ("red", 1.1), (" house", 1)]),
        ("a ((red)) house", [("a ", 1), ("red", 1.21), (" house", 1)]),
        ("[red]", [("red", 0.909091)]),
        ("[[red]]", [("red", 0.826446)]),
        ("([red])", [("red", 1)]),
        ("(red:1.5)", [("red", 1.5)]),
        ("(red: 1.5 ) x", [("red", 1.5), (" x", 1)]),
        ("(red:.5)", [("red", 0.5)]),
        ("(red:0)(blue:-1)", [("red", 0), ("blue", -1)]),
        ("((red:1.5) boat:2)", [("red", 3), (" boat", 2)]),
        ("(a (b:1.5) c)", [("a ", 1.1), ("b", 1.65), (" c", 1.1)]),
        (r"\(red\) \[a\] \\", [(r"(red) [a] " + "\\", 1)]),
        (r"(red \(x\):1.2)", [("red (x)", 1.2)]),
        ("(red:boat)", [("red:boat", 1.1)]),
        ("(a:b:1.2)", [("a:b", 1.2)]),
        ("time: 12:30", [("time: 12:30", 1)]),
        ("[red:x]", [("red:x", 0.909091)]),
        # never closed: to the end; closing nothing: a letter
        ("(red house", [("red house", 1.1)]),
        ("a [red", [("a ", 1), ("red", 0.909091)]),
        ("a) red]", [("a) red]", 1)]),
        ("(a]b)", [("a]b", 1.1)]),
        ("red BREAK blue", [("red", 1), (None, 1), ("blue", 1)]),
        ("(red BREAK blue:1.3)", [("red", 1.3), (None, 1), ("blue", 1.3)]),
        ("BREAK", [(None, 1)]),
        ("BREAKS break", [("BREAKS break", 1)]),
    ],
)
def test_weights(text: str, wanted: list[tuple[str | None, float]]) -> None:
    assert parts(text) == wanted


@pytest.mark.parametrize(
    ("text", "changes", "at"),
    [
        ("[red:blue:0.5] boat", {5}, {0: "red boat", 4: "red boat", 5: "blue boat"}),
        ("a [blue:0.3]boat", {3}, {2: "a boat", 3: "a blueboat"}),
        ("a [blue ::0.7]boat", {7}, {6: "a blue boat", 7: "a boat"}),
        ("[a:b:3]", {3}, {2: "a", 3: "b"}),
        ("[a:b:0.25]", {3}, {2: "a", 3: "b"}),  # 2.5 steps are over at step 3
        ("[a:b:0.0]", set(), {0: "b"}),
        ("[a:b:0]", set(), {0: "b"}),
        ("[a:b:1.0]", set(), {9: "a"}),
        ("[a:b:99]", set(), {9: "a"}),
        ("[a:[b:c:0.8]:0.4]", {4, 8}, {0: "a", 4: "b", 8: "c"}),
        ("([a:(b:1.2):0.5]:1.3)", {5}, {0: "(a:1.3)", 5: "((b:1.2):1.3)"}),
        (r"[\[x\]:b:0.5]", {5}, {0: r"\[x\]", 5: "b"}),
        ("[a:b:c:0.5]", set(), {0: "[a:b:c:0.5]"}),
        ("[a:b:0.5", set(), {9: "[a:b:0.5"}),
    ],
)
def test_what_changes_midway(text: str, changes: set[int], at: dict[int, str]) -> None:
    assert switches(text, 10) == changes
    assert {step: at_step(text, step, 10) for step in at} == at


@pytest.mark.parametrize("steps", [10, 20, 30, 100])
def test_a_share_is_counted_without_rounding(steps: int) -> None:
    for tenth in range(1, 10):
        assert switches(f"[a:b:0.{tenth}]", steps) == {tenth * steps // 10}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a [red|blue] boat", r"'\[red\|blue\]' .* alternation"),
        ("red <lora:style:0.8>", "<lora:style:0.8>' .* --lora FILE:0.8"),
        ("red AND blue", "write 'and'"),
        ("[a:b:-1]", "0 steps or more, not after -1"),
        ("(" * 5000, "hundreds of brackets"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        weigh(text)
    assert "\n" not in str(caught.value)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(ALPHABET)
def test_no_text_brings_it_down(text: str) -> None:
    with contextlib.suppress(InputError):
        for step in (0, *switches(text, 7)):
            weigh(at_step(text, step, 7))


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab ():.15,"), max_size=24))
def test_what_never_changes_is_left_as_typed(text: str) -> None:
    assert switches(text, 7) == set()
    assert at_step(text, 3, 7) == text


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab :.15,|<>-"), max_size=24))
def test_words_without_brackets_weigh_1(text: str) -> None:
    assert [(p.text, p.weight) for p in weigh(text)] == ([(text, 1.0)] if text else [])
