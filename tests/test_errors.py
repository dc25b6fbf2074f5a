"""What a message may hold, whatever it complains of."""

import pytest

from sdcore.errors import InputError, one_line, printable, unknown


@pytest.mark.parametrize(
    "letter", ["\0", "\x07", "\x1b", "\x7f", "\x9b", "\u200f", "\u202e", "\u2066", "\ud800"]
)
def test_what_steers_a_terminal_is_escaped(letter: str) -> None:
    assert printable(f"a{letter}b") == f"a\\u{ord(letter):04x}b"
    assert letter not in str(InputError(f"unknown key a{letter}b"))


def test_words_of_every_script_are_printed_as_they_are() -> None:
    text = "ein roter Ballon, 红色气球, בלון אדום, \U0001f388\u200d\U0001f7e5\ta\nb"
    assert printable(text) == text


def test_a_message_is_one_line_and_repeats_no_more_than_a_line() -> None:
    said = str(InputError(f"the key {'k' * 10_000_000} is\nunknown: known are a and b"))
    assert said.startswith("the key kkk")
    assert said.endswith("kkk is unknown: known are a and b")
    assert len(said) < 2000
    assert "\n" not in said
    assert len(one_line("word " * 1_000_000)) < 2000
    assert len(str(unknown("scheduler", "9" * 5_000_000, ["euler"]))) < 2000
