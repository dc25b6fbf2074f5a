"""JSON that strangers wrote."""

import math

import pytest

from sdcore.errors import InputError
from sdcore.strict_json import MAX_DEPTH, parse


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "'a' stands twice"),
        ('{"a": {"b": 1, "b": 2}}', "'b' stands twice"),
        ("1" * 5000, "5000 digits"),
        ("-" + "1" * 400, "401 digits"),
        ("[" * 100_000, "brackets"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "brackets"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "brackets"),
        ('["\\ud800"]', "UTF-8"),
        ('{"\\uDfff": 1}', "UTF-8"),
        (b'"\xff"', "UTF-8"),
        ("{", "Expecting"),
        ("", "Expecting"),
    ],
)
def test_what_is_refused(text: str | bytes, why: str) -> None:
    with pytest.raises(InputError, match=why):
        parse(text)


def test_what_published_files_hold_is_read() -> None:
    assert parse('{"model_max_length": 1000000000000000019884624838656}') == {
        "model_max_length": 1000000000000000019884624838656
    }
    assert parse('{"lambda_min_clipped": -Infinity}') == {"lambda_min_clipped": -math.inf}
    assert parse('"\\ud83c\\udf88"') == "\U0001f388"
    assert parse("-0") == 0
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '{"a": -0}'])
def test_what_the_standard_has_not(text: str) -> None:
    with pytest.raises(InputError):
        parse(text, standard=True)
