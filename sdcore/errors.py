"""The one exception for whatever the user can mend, and how it names near misses."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LONGEST_WORD, LONGEST_LINE = 400, 1600  # letters of a message: paths fit, keys of 100 MB do not

# What steers a terminal or turns a line round: C0 (but for tab and line feed), DEL, C1, the line
# and paragraph separators, marks of text direction; and halves of surrogate pairs, which no
# encoding has.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class InputError(ValueError):
    """Bad input. The message is one line: what was wrong, what is allowed, what to do.

    Whatever it repeats of the input is made fit to be printed (`one_line`). The command line prints
    it to stderr and exits with status 2.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


def printable(text: str) -> str:
    """`text` whose control characters are escaped, as JSON and Python spell them.

    >>> printable("red\\x1b[31m")
    'red\\\\u001b[31m'
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """`text` as one printable line; of words and lines that are too long the middle is left out."""
    words = (_shortened(word, LONGEST_WORD) for word in _shortened(text, 1 << 16).split())
    return printable(_shortened(" ".join(words), LONGEST_LINE))


def _shortened(text: str, most: int) -> str:
    """The beginning and the end of a text of more than `most` letters."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"


def unknown(
    what: str, name: str, known: Iterable[str], short: Iterable[str] | None = None
) -> InputError:
    """An InputError for a name that is not in `known`: it offers the near ones, else lists `short`.

    known: all names, the preferred spellings first; short: those worth listing, None for all.

    >>> str(unknown("scheduler", "eulr", ["euler", "heun"]))
    "unknown scheduler 'eulr': did you mean euler?"
    """
    names: dict[str, str] = {}
    for each in known:
        names.setdefault(_letters(each), each)
    near = get_close_matches(_letters(name[:LONGEST_WORD]), sorted(names), n=3, cutoff=0.6)
    if near:
        offered = " or ".join(names[each] for each in near)
        return InputError(f"unknown {what} {name!r}: did you mean {offered}?")
    listed = ", ".join(sorted(names.values()) if short is None else short)
    return InputError(f"unknown {what} {name!r}: known are {listed or 'none'}")


def _letters(name: str) -> str:
    """What is left of a name when case, spaces and signs do not matter."""
    return "".join(c for c in name.casefold() if c.isalnum() or c == "+")


def listed(what: str, names: Sequence[str], most: int = 4) -> str:
    """Names after their number, the list cut after `most`; "" for none.

    >>> listed("missing", ["a", "b", "c"], most=2)
    '3 missing: a, b and 1 more'
    """
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {what}: {', '.join(names[:most])}{more}"
