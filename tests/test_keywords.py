"""Options by name as keywords, in the types and the ranges of a function."""

from functools import partial
from typing import Annotated, Literal

import pytest

from sdcore.errors import InputError
from sdcore.keywords import Range, keywords


def step(
    x,
    *,
    order: Literal[1, 2] = 2,
    share: Annotated[float, Range(0, 1, above=True)] = 0.5,
    final: bool = False,
    count: int = 3,
    skip: tuple[int, ...] = (),
    kind: str = "a",
):
    return x


class Kind:
    def __init__(self, scale: float, name: str = "n"):
        self.scale = scale


def given(options, function=step, skip=1):
    return keywords(options, function, "solver step", skip)


def test_values_take_the_type_of_the_default():
    options = {"share": 1, "final": 1, "count": 4, "skip": 0, "kind": "b", "order": 1}
    found = given(options)
    assert found == {"share": 1.0, "final": True, "count": 4, "skip": (0,), "kind": "b", "order": 1}
    assert (type(found["share"]), type(found["final"])) == (float, bool)
    assert given({"share": 1}, partial(step, kind="c")) == {"share": 1.0}
    assert given({"scale": 3}, Kind, 0) == {"scale": 3}
    assert given({"anything": 3}, lambda **options: options) == {"anything": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ordre": 1}, "solver step has no option 'ordre' (did you mean order?): its options are "
         "order=2, share=0.5, final=false, count=3, skip=[], kind=a"),
        ({"x": 1}, "no option 'x'"),
        ({"order": 3}, "has order=3: it is 1 or 2"),
        ({"order": True}, "has order=true: it is 1 or 2"),
        ({"share": 0}, "has share=0: it is a number above 0 and at most 1"),
        ({"share": float("nan")}, "has share=nan"),
        ({"share": "much"}, "has share=much: it is a number"),
        ({"final": 2}, "has final=2: it is true or false"),
        ({"count": 1.5}, "has count=1.5: it is a whole number"),
        ({"count": True}, "has count=true"),
        ({"kind": 1}, "has kind=1: it is a text"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(options, message):
    with pytest.raises(InputError) as caught:
        given(options)
    assert message in str(caught.value)


def test_what_has_no_options_and_what_needs_one():
    with pytest.raises(InputError, match="'a'; it has none"):
        given({"a": 1}, lambda x: x)
    with pytest.raises(InputError, match="needs scale: write scale="):
        given({}, Kind, 0)
