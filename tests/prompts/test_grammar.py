"""The A1111 grammar: what its documentation promises, and that no text brings it down."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcore.errors import InputError
from sdcore.prompts import at_step, compose, switches, weigh

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
        ("[red:blue:0.5] boat", {6}, {0: "red boat", 5: "red boat", 6: "blue boat"}),
        ("a [blue:0.3]boat", {4}, {3: "a boat", 4: "a blueboat"}),
        ("a [blue ::0.7]boat", {8}, {7: "a blue boat", 8: "a boat"}),
        ("[a:b:3]", {4}, {3: "a", 4: "b"}),
        ("[a:b:1]", {2}, {1: "a", 2: "b"}),
        ("[a:b:0.25]", {3}, {2: "a", 3: "b"}),  # of 2.5 steps 2 are counted
        ("[a:b:0.05]", set(), {0: "b"}),
        ("[a:b:0.0]", set(), {0: "b"}),
        ("[a:b:0]", set(), {0: "b"}),
        ("[a:b:1.0]", set(), {9: "a"}),
        ("[a:b:99]", set(), {9: "a"}),
        ("[a:[b:c:0.8]:0.4]", {5, 9}, {0: "a", 5: "b", 9: "c"}),
        ("([a:(b:1.2):0.5]:1.3)", {6}, {0: "(a:1.3)", 6: "((b:1.2):1.3)"}),
        (r"[\[x\]:b:0.5]", {6}, {0: r"\[x\]", 6: "b"}),
        ("[a:b:c:0.5]", set(), {0: "[a:b:c:0.5]"}),
        ("[a:b:0.5", set(), {9: "[a:b:0.5"}),
        ("[a|b]", {*range(2, 10)}, {0: "a", 1: "a", 2: "b", 3: "a", 4: "b"}),
        ("[a|b|] c", {*range(2, 10)}, {1: "a c", 2: "b c", 3: " c", 4: "a c"}),
        ("[a|a]", set(), {9: "a"}),
        ("([a|(b:1.2)]:1.3)", {*range(2, 10)}, {1: "(a:1.3)", 2: "((b:1.2):1.3)"}),
        ("[[a|b]:c:0.3]", {2, 3, 4}, {1: "a", 2: "b", 3: "a", 4: "c"}),
        ("[a|[b:c:6]]", {*range(2, 10)}, {6: "b", 7: "a", 8: "c"}),
        ("a|b", set(), {9: "a|b"}),
        (r"[a\|b]", set(), {9: r"[a\|b]"}),
        ("[a|b", set(), {9: "[a|b"}),
    ],
)
def test_what_changes_midway(text: str, changes: set[int], at: dict[int, str]) -> None:
    assert switches(text, 10) == changes
    assert {step: at_step(text, step, 10) for step in at} == at


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a red house", [("a red house", 1)]),
        ("a house at 5:30", [("a house at 5:30", 1)]),
        ("red AND blue", [("red ", 1), (" blue", 1)]),
        ("red :2 AND blue:0.5 AND green : -1.5 ", [("red", 2), (" blue", 0.5), (" green", -1.5)]),
        ("red:x AND blue:", [("red:x ", 1), (" blue:", 1)]),
        ("(red:1.2) AND [a|b]:.5", [("(red:1.2) ", 1), (" [a|b]", 0.5)]),
        ("SAND AND ANDY", [("SAND ", 1), (" ANDY", 1)]),
        ("AND", [("", 1), ("", 1)]),
    ],
)
def test_prompts_are_divided_at_and(text: str, wanted: list[tuple[str, float]]) -> None:
    assert list(compose(text)) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("red <lora:style:0.8>", "<lora:style:0.8>' .* --lora FILE:0.8"),
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
