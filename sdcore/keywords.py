"""Options by name as the keywords of a function or a class, each in its type and range."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from sdcore.errors import InputError
from sdcore.written import Value, format_value


@dataclass(frozen=True)
class Range:
    """What a number may be, as a note on an option's type: Annotated[float, Range(0, 1)]."""

    least: float
    most: float = math.inf
    above: bool = False  # the least itself is not allowed

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most and not (self.above and number == self.least)

    def __str__(self) -> str:
        first = f"above {self.least:g}" if self.above else f"of at least {self.least:g}"
        return first if math.isinf(self.most) else f"{first} and at most {self.most:g}"


def keywords(
    options: Mapping[str, Value],
    function: Callable[..., Any],
    what: str,
    skip: int = 0,
    hidden: Sequence[str] = (),
) -> dict[str, Any]:
    """The options as keywords of this function or class, each in the type of its default.

    what: whose they are, for messages ("scheduler lms"). skip: how many parameters come before the
    options; hidden: the names of others that are none. A
    type Literal[...] or Annotated[..., Range(...)] limits the values. Raises InputError, with all
    options and their defaults, for one that is unknown, a value that it cannot have,
    or one that it needs and is not there.
    """
    takes = inspect.signature(function).parameters
    if any(known.kind is inspect.Parameter.VAR_KEYWORD for known in takes.values()):
        return dict(options)
    given = [each for each in takes.values() if each.kind is not inspect.Parameter.VAR_POSITIONAL]
    before = [each for each in given if each.kind is not inspect.Parameter.KEYWORD_ONLY][:skip]
    known = {
        each.name: each for each in given if each not in before and each.name not in hidden
    }  # fmt: skip
    types = _types(function)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            raise InputError(f"{what} needs {name}: write {name}=...")
    checked: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise InputError(f"{what} has no option {name[:80]!r}{_those(name, known)}")
        checked[name] = _fitting(value, known[name].default, types.get(name))
        if checked[name] is _UNFIT:
            allowed = _allowed(known[name].default, types.get(name))
            raise InputError(f"{what} has {name}={format_value(value)[:80]}: it is {allowed}")
    return checked


_UNFIT: Any = object()


def _types(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        function = inspect.unwrap(getattr(function, "func", function))
        where = function.__init__ if isinstance(function, type) else function
        return get_type_hints(where, include_extras=True)
    except (TypeError, NameError, AttributeError):
        return {}


def _those(name: str, known: Mapping[str, inspect.Parameter]) -> str:
    """What there is in place of an unknown option."""
    if not known:
        return "; it has none"
    near = get_close_matches(name, known, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    listed = (
        key if parameter.default is parameter.empty else f"{key}={format_value(parameter.default)}"
        for key, parameter in known.items()
    )  # fmt: skip
    return f"{meant}: its options are {', '.join(listed)}"


def _fitting(value: Value, default: Any, kind: Any) -> Any:
    """The value in the type of its default, _UNFIT where it has another."""
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) and type(value) is not bool else _UNFIT
    if isinstance(default, bool):
        return bool(value) if value in (0, 1) else _UNFIT
    if isinstance(default, int):
        fits = type(value) is int
    elif isinstance(default, float):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return _UNFIT
        value = float(value)
        unlimited = math.isinf(default) or bool(_limits(kind))  # a Range says itself how far
        fits = _is_float32(value) and (math.isfinite(value) or unlimited)
    elif isinstance(default, str):
        fits = isinstance(value, str)
    elif isinstance(default, (tuple, list)):
        value = value if isinstance(value, tuple) else (value,)
        fits = all(_is_item(item, _item_type(kind)) for item in value)
    else:
        fits = True
    if fits and isinstance(value, (int, float)):
        fits = all(value in limit for limit in _limits(kind))
    return value if fits else _UNFIT


def _item_type(kind: Any) -> Any:
    """float of tuple[float, ...]; None where nothing is said."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_args(kind)[0] if get_origin(kind) in (tuple, list) and get_args(kind) else None


def _is_item(item: Value, kind: Any) -> bool:
    """Whether it may stand in a list of this type."""
    if kind is float:
        return type(item) in (int, float) and math.isfinite(item) and _is_float32(item)  # type: ignore[arg-type]
    return not isinstance(kind, type) or type(item) is kind


def _is_float32(value: float) -> bool:
    """Whether a number has a place among the tensors'; infinity, for "no limit", has."""
    return math.isinf(value) or abs(value) <= 2.0**127


def _allowed(default: Any, kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if (item := _item_type(kind)) is not None:
        return {float: "numbers", int: "whole numbers", str: "texts"}.get(item, "others") + (
            " in square brackets"
        )
    name = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return " ".join((name.get(type(default), "another"), *map(str, _limits(kind))))


def _limits(kind: Any) -> list[Range]:
    notes = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return [note for note in notes if isinstance(note, Range)]
