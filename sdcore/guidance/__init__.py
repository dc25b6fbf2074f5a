"""Guidance: how the branches become one prediction. Decided by sigma, never by a counter."""

from sdcore.guidance.base import (
    Branches,
    Guidance,
    Source,
    accepted,
    branch_names,
    described,
    lerp,
    sources_of,
    with_x0,
)
from sdcore.guidance.cfg import CFG
from sdcore.guidance.compose import Interval, Sum
from sdcore.guidance.table import GUIDANCES, resolve, write

__all__ = ["CFG", "GUIDANCES", "Branches", "Guidance", "Interval", "Source", "Sum", "accepted",
           "branch_names", "described", "lerp", "resolve", "sources_of", "with_x0",
           "write"]  # fmt: skip
