"""Published config.json files, read strictly: the fields of a frozen dataclass, each of its type.

Every field has diffusers' (or transformers') name and default, so that an old file, which leaves
fields out, means what it meant when it was written. Fields that change the network in a way that
no Stable Diffusion checkpoint uses are refused by name instead of being ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from sdcore.errors import InputError

# Of a block or an encoder; published are up to 32. What says a billion would be laid out for hours.
MAX_LAYERS = 1000


def refuse_unknown(what: str, raw: Mapping[str, Any], allowed: Mapping[str, tuple]) -> None:
    """Raises InputError for a field of another value than these; null is always harmless."""
    for name, values in allowed.items():
        value = raw.get(name)
        if isinstance(value, list | tuple) and value and all(v == value[0] for v in value):
            value = value[0]  # one for each block, and all alike
        if value is not None and value not in values:
            accepted = ", ".join(repr(v) for v in values) or "null"
            raise InputError(f"{what} config: {name} is {value!r}; this engine knows {accepted}")


def pick(cls: type, what: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `cls` that `raw` names, lists as tuples; null means the default."""
    if not isinstance(raw, Mapping):
        raise InputError(f"{what} config: expected a JSON object, got {type(raw).__name__}")
    kinds = get_type_hints(cls)
    fields = {k: v for k, v in raw.items() if k in kinds and v is not None}
    fields = {k: _tuples(v) for k, v in fields.items()}
    for name, value in fields.items():
        require(_fits(value, kinds[name]), f"{what} config: {name} cannot be {raw[name]!r}")
        if "layers" in name:
            most = max(_flat(value))
            require(most <= MAX_LAYERS, f"{what} config: {name} is {most}; {MAX_LAYERS} at most")
    return fields


def _flat(value: int | tuple) -> Iterator[int]:
    """The numbers in lists of lists."""
    for item in value if isinstance(value, tuple) else ():
        yield from _flat(item)
    if isinstance(value, int):
        yield value


def _tuples(value: Any) -> Any:
    """Lists as tuples, to any depth."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type; numbers are finite, whole ones not below 0."""
    if isinstance(kind, UnionType):
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        each = get_args(kind)[0]
        return isinstance(value, tuple) and value != () and all(_fits(v, each) for v in value)
    if kind is int:
        return type(value) is int and value >= 0
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return isinstance(value, kind)


def divides(part: int, whole: int) -> bool:
    """Whether `part` > 0 goes into `whole` without a rest."""
    return part > 0 and whole % part == 0


def require(condition: bool, message: str) -> None:
    """Raises InputError with the message where the condition does not hold."""
    if not condition:
        raise InputError(message)
