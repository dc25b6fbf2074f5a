"""The one exception for whatever the user can mend, and how it names near misses."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input. The message is one line: what was wrong, what is allowed, what to do.

    The command line prints it to stderr and exits with status 2.
    """


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
    near = get_close_matches(_letters(name), sorted(names), n=3, cutoff=0.6)
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
