"""The one exception for whatever the user can mend, and how it names near misses."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input. The message is one line: what was wrong, what is allowed, what to do.

    The command line prints it to stderr and exits with status 2.
    """


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """An InputError for a name that is not in `known`: it offers the near ones, else lists all.

    >>> str(unknown("scheduler", "eulr", ["euler", "heun"]))
    "unknown scheduler 'eulr': did you mean euler?"
    """
    names = sorted(known)
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    if near:
        return InputError(f"unknown {what} {name!r}: did you mean {' or '.join(near)}?")
    return InputError(f"unknown {what} {name!r}: known are {', '.join(names) or 'none'}")


def listed(what: str, names: Sequence[str], most: int = 4) -> str:
    """Names after their number, the list cut after `most`; "" for none.

    >>> listed("missing", ["a", "b", "c"], most=2)
    '3 missing: a, b and 1 more'
    """
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {what}: {', '.join(names[:most])}{more}"
