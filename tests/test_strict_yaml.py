"""YAML as it is written: no type is guessed, nothing is run, and each mistake has its line."""

import pytest

from sdcore.errors import InputError
from sdcore.strict_yaml import Items, Scalar, Table, parse


@pytest.mark.parametrize(
    "text",
    ["1e-4", "5e-6", "1E4", "no", "off", "y", "12:30", "010", "0x10", "2024-01-02", "7.9", "0-3"],
)
def test_a_value_is_what_is_written(text: str) -> None:
    assert parse(f"key: {text}  # a remark", "a.yaml").values == {"key": Scalar(text, 1)}


@pytest.mark.parametrize("text", ["", "~", "null", "NULL"])
def test_null_is_null_and_in_quotes_a_text(text: str) -> None:
    assert parse(f"key: {text}", "a.yaml").values["key"] == Scalar(None, 1)
    assert parse(f'key: "{text}"', "a.yaml").values["key"] == Scalar(text, 1)


def test_lists_tables_and_lines() -> None:
    table = parse("a: [1, x]\n\nb:\n  c: 2\n", "a.yaml")
    assert table.values["a"] == Items((Scalar("1", 1), Scalar("x", 1)), 1)
    assert table.values["b"] == Table({"c": Scalar("2", 4)}, {"c": 4}, 4, column=2)
    assert table.lines == {"a": 1, "b": 3}
    assert parse("# nothing", "a.yaml").values == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "a.yaml, line 3: a stands in line 1 too"),
        ("a: 1\nb: {c: 1, c: 2}", "a.yaml, line 2: c stands in line 2 too"),
        ("a: [1", "a.yaml, line 1: it is no YAML"),
        ("a: 1\n\tb: 2", "a.yaml, line 2: it is no YAML"),
        ("a: 1\n---\nb: 2", "a.yaml, line 2: it is no YAML"),
        ("a: *b", "a.yaml, line 1: it is no YAML"),
        (
            "a: !!python/object/apply:os.system [x]",
            "a.yaml, line 1: the tag .*python.* is not read",
        ),
        ("a: !mine x", "the tag !mine is not read"),
        ("[1, 2]: 3", "a.yaml, line 1: a key is a word"),
        ("- 1\n- 2", "a.yaml holds no keys"),
        ("just words", "a.yaml holds no keys"),
        ("a: " + "[" * 50 + "]" * 50, "more than 8 levels"),
        ("a: " + "[" * 100_000, "no YAML|levels"),
        ("a: \x01", "a.yaml: it is no YAML"),
        ('a: "\\UFFFFFFFF"', "a.yaml: it is no YAML"),
        ('a: "\\U00110000"', "a.yaml: it is no YAML"),
        ('a: "\\ud800"', "a.yaml, line 1: half a letter"),
        ("a: " + "x" * (1 << 20), "at most 1,048,576 are read"),
        ("a: &a 1\nb: *a", "a.yaml, line 1 is repeated by an alias"),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse(text, "a.yaml")
    assert "\n" not in str(caught.value)
