"""Short reprs: what one wants to know of a value, in a few lines, whatever it is made of."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

MOST = 1500  # letters
FEW = 4  # entries of a list that are shown


def short(self: Any) -> str:
    """A dataclass as its fields; a tensor as its shape and dtype, long lists by their ends.

    As its `__repr__`: `__repr__ = short`.
    """
    values = {f.name: getattr(self, f.name) for f in fields(self) if f.repr}
    inside = ", ".join(f"{name}={brief(value)}" for name, value in values.items())
    return clipped(f"{type(self).__name__}({inside})")


def brief(value: Any) -> str:
    """A value in a few words."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{list(value.shape)} {str(value.dtype).removeprefix('torch.')}>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {brief(v)}" for k, v in list(value.items())[:FEW]) + "}"
    if isinstance(value, tuple | list):
        return listing(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if is_dataclass(value) and not isinstance(value, type):
        return short(value)
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return clipped(repr(value), 120)


def listing(values: Any) -> str:
    """(a, b, ..., z), and how many where some are left out."""
    if len(values) <= FEW:
        return "(" + ", ".join(map(brief, values)) + ("," if len(values) == 1 else "") + ")"
    return f"({brief(values[0])}, {brief(values[1])}, ..., {brief(values[-1])}; {len(values)})"


def clipped(text: str, most: int = MOST) -> str:
    """The text, cut to so many letters."""
    return text if len(text) <= most else text[: most - 4] + " ..."
