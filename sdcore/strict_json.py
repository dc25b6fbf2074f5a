"""JSON that strangers wrote: one reader, strict and bounded.

Python's own takes a field that stands twice (and believes the last), halves of surrogate pairs,
numbers of any length and brackets of any depth, over which whoever reads the value then falls.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import chain
from typing import Any

from sdcore.errors import InputError

MAX_DIGITS = 100  # of a whole number: each fits a float (transformers writes 10^30 for "no limit")
MAX_DEPTH = 32  # brackets inside each other; published files have up to 6
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # how half of a surrogate pair is written


def parse(text: str | bytes, standard: bool = False) -> Any:
    """The value that `text` holds.

    Args:
        text: UTF-8 where it is bytes.
        standard: take no NaN, no Infinity, which diffusers writes, and no -0.

    Raises:
        InputError: no JSON; a field that stands twice; what no text or float can hold; brackets
            deeper than `MAX_DEPTH`. The message is what follows on "cannot be read as JSON: ".
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_once,
            parse_int=_plain if standard else _whole,
            parse_constant=_constant if standard else None,
        )
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise InputError(f"more than {MAX_DEPTH} brackets inside each other") from None
    except UnicodeError:
        raise InputError("it holds what is no UTF-8 text") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from None
    _check_depth(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise InputError(f"the field {twice!r} stands twice")
    return value


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise InputError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _plain(digits: str) -> int:
    if digits == "-0":
        raise InputError("the number -0")
    return _whole(digits)


def _constant(name: str) -> float:
    raise InputError(f"{name}, which is no number")


def _check_depth(value: Any) -> None:
    """Raises InputError where lists and objects lie too deep. Level by level: no recursion."""
    level = [value] if type(value) in (dict, list) else []
    for _ in range(MAX_DEPTH):
        inner = chain.from_iterable(x.values() if isinstance(x, dict) else x for x in level)
        level = [x for x in inner if type(x) in (dict, list)]
        if not level:
            return
    raise InputError(f"more than {MAX_DEPTH} brackets inside each other")
