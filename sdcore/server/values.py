"""Numbers of a JSON body: strictly of their kind, but whole floats are whole numbers."""

# pyright: reportMissingImports=false

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator


def _whole(value: Any) -> Any:
    """JavaScript writes 20.0; true and "20" are no numbers."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a whole number is wanted")
    return value


def _real(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise ValueError("a finite number is wanted")
    if not math.isfinite(value):
        raise ValueError("a finite number is wanted")
    return float(value)


Whole = Annotated[int, BeforeValidator(_whole, json_schema_input_type=int)]
Real = Annotated[float, BeforeValidator(_real, json_schema_input_type=float)]
