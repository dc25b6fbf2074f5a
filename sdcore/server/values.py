"""Numbers of a JSON body: strictly of their kind, but whole floats are whole numbers."""

# pyright: reportMissingImports=false

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError


def _whole(value: Any) -> Any:
    """JavaScript writes 20.0; true and "20" are no numbers. A ValueError would be told with that
    word before it."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PydanticCustomError("value_error", "a whole number is wanted")
    return value


def _real(value: Any) -> Any:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not abs(value) <= 1e300:  # neither NaN nor infinite
        raise PydanticCustomError("value_error", "a finite number is wanted")
    return float(value)


Whole = Annotated[int, BeforeValidator(_whole, json_schema_input_type=int)]
Real = Annotated[float, BeforeValidator(_real, json_schema_input_type=float)]
