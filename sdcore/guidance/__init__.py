"""Guidance: how the branches become one prediction. Decided by sigma, never by a counter."""

from sdcore.guidance.apg import APG
from sdcore.guidance.auto import Autoguidance
from sdcore.guidance.base import (
    Branches,
    Guidance,
    Source,
    accepted,
    branch_names,
    described,
    is_unpaired,
    lerp,
    scale_of,
    sources_of,
    with_form,
    with_x0,
)
from sdcore.guidance.cfg import CFG
from sdcore.guidance.cfgpp import CFGPlusPlus
from sdcore.guidance.compose import Interval, Sum
from sdcore.guidance.composed import Composed, Conjunction, part_names
from sdcore.guidance.perpendicular import PerpNeg
from sdcore.guidance.perturbed import PAG, SEG, SkippedLayers
from sdcore.guidance.rescale import Rescale
from sdcore.guidance.table import GUIDANCES, resolve, write, written_parts
from sdcore.guidance.threshold import Threshold
from sdcore.guidance.varying import Varying
from sdcore.guidance.zero_star import CFGZeroStar

__all__ = [
    "APG", "Autoguidance", "Branches", "CFG", "CFGPlusPlus", "CFGZeroStar", "Composed",
    "Conjunction", "GUIDANCES", "Guidance", "Interval", "PAG", "PerpNeg", "Rescale", "SEG",
    "SkippedLayers", "Source", "Sum", "Threshold", "Varying", "accepted", "branch_names",
    "described", "is_unpaired", "lerp", "part_names", "resolve", "scale_of", "sources_of",
    "with_form", "with_x0", "write", "written_parts",
]  # fmt: skip
