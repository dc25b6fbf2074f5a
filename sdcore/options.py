"""An option, declared once: as the field of a dataclass that says all there is to say of it.

The keywords of a function, the options of a command and what a picture inherits are made of these
fields: whoever adds one adds it in one place.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field
from functools import wraps
from os import PathLike
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args

from sdcore.errors import InputError

P = ParamSpec("P")
S = TypeVar("S")
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """What is known of an option beside its name, type and default.

    help: in a few words, for the command line. doc: at length, for Python; None: as help says.
    group: the heading that it stands under.
    kind: what is typed: int, float, str, bool, "size" (1024x768) or "corner" (0,0).
    metavar: how what is typed is called; None: the kind.
    flag: how it is spelt on the command line; None: as its name.
    also: what other tools call it, in letters or as a flag.
    says: what other tools call a value of it -> what it is called here.
    many: whether it takes all that are given; of others each value is a picture of its own.
    goes_with: where one of these is chosen anew, an old value of this is not taken over: another
        scheduler brings its own spacing.
    """

    help: str
    group: str
    doc: str | None = None
    kind: type | str = str
    metavar: str | None = None
    flag: str | None = None
    also: tuple[str, ...] = ()
    says: tuple[tuple[str, str], ...] = ()
    many: bool = False
    goes_with: tuple[str, ...] = ()


def option(help: str, group: str, default: Any = None, **more: Any) -> Any:
    """The field of an option."""
    return field(default=default, metadata={"option": Option(help, group, **more)})


def options_of(*kinds: type) -> dict[str, tuple[Field[Any], Option]]:
    """Name -> field and option, of all that these dataclasses declare."""
    return {f.name: (f, f.metadata["option"]) for f in _declared(kinds)}


def _declared(kinds: Sequence[type]) -> Iterator[Field[Any]]:
    for kind in kinds:
        for base in reversed(kind.__mro__):
            own = vars(base).get("__dataclass_fields__", {})
            yield from (f for f in own.values() if "option" in f.metadata)


def takes(
    options: Callable[P, O], also: Mapping[str, str] | None = None
) -> Callable[[Callable[[O], T]], Callable[P, T]]:
    """The keywords of a function are the fields of its one argument, a dataclass of options.

    also: names of other libraries -> ours, to say which one is meant.
    """
    return lambda function: _taking(function, options, {} if also is None else also)  # type: ignore


def method_takes(
    options: Callable[P, O], also: Mapping[str, str] | None = None
) -> Callable[[Callable[[S, O], T]], Callable[Concatenate[S, P], T]]:
    """The same of a method."""
    return lambda function: _taking(function, options, {} if also is None else also)  # type: ignore


def _taking(function: Any, options: Any, also: Mapping[str, str]) -> Any:
    own = [*inspect.signature(function).parameters.values()][:-1]
    given = inspect.signature(options)

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        for name in named.keys() - given.parameters.keys():
            meant = also.get(name)
            right = f"it is called {meant}" if meant else f"there are {', '.join(given.parameters)}"
            raise InputError(f"{function.__name__} has no {name}: {right}")
        try:
            bound = given.bind(*args[len(own) :], **named)
        except TypeError as error:
            raise TypeError(f"{function.__name__}(): {error}") from None
        for name, value in [*bound.arguments.items()]:
            bound.arguments[name] = _converted(name, value, options)
        return function(*args[: len(own)], options(*bound.args, **bound.kwargs))

    parameters = [*own, *given.parameters.values()]
    returns = inspect.signature(function).return_annotation
    call.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore
    call.__doc__ = f"{inspect.cleandoc(function.__doc__)}\n\nOptions:\n{documented(options)}"
    return call


def documented(options: type) -> str:
    """A line for each option: its name and what it is."""
    known = options_of(options)
    names = [name for name in inspect.signature(options).parameters if name in known]
    told = {name: known[name][1] for name in names}
    return "\n".join(f"    {name}: {each.doc or each.help}" for name, each in told.items())


def _converted(name: str, value: Any, options: type) -> Any:
    """The value as Python's own type, whatever library's number it is.

    Raises InputError, naming the option, for one of another kind. What may also be an object (a
    scheduler, a picture) is left as it is.
    """
    declared = options_of(options).get(name)
    if value is None or declared is None:
        return value
    kind = declared[1].kind
    if kind is str:
        types = get_args(declared[0].type) or (declared[0].type,)
        only_text = str in types and {str, float, type(None)}.issuperset(types)
        return _text(name, value, float in types) if only_text else value
    what, convert = _KINDS[kind]
    try:
        return convert(value)
    except OverflowError:
        raise InputError(f"{name} is out of range: {value!r:.80}") from None
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} must be {what}, not {value!r:.80}") from None


def _text(name: str, value: Any, or_number: bool) -> Any:
    if isinstance(value, str | PathLike):
        return str(value)
    try:
        if or_number:
            return _number(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    what = "a text or a number" if or_number else "a text"
    raise InputError(f"{name} must be {what}, not {value!r:.80}")


def _whole(value: Any) -> int:
    if isinstance(_plain(value), bool):
        raise TypeError
    return operator.index(value)


def _number(value: Any) -> float:
    if isinstance(_plain(value), bool | str | bytes):  # "3" is no number, but where it is typed
        raise TypeError
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(plain := _plain(value), bool):
        raise TypeError
    return plain


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return _whole(first), _whole(second)


def _plain(value: Any) -> Any:
    """What a number of numpy or torch holds: neither's truth is Python's."""
    return value.item() if hasattr(value, "item") else value


_KINDS: Mapping[type | str, tuple[str, Callable[[Any], Any]]] = {
    int: ("a whole number", _whole),
    float: ("a number", _number),
    bool: ("True or False", _truth),
    "size": ("two whole numbers, (width, height)", _pair),
    "corner": ("two whole numbers, (left, top)", _pair),
}
