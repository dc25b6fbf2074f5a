"""A spacing that is written out: a list of sigmas or of timesteps."""

import math
from itertools import pairwise

from sdcore.errors import InputError
from sdcore.schedulers.spacing import sigmas as curves
from sdcore.schedulers.spacing import timesteps as grids
from sdcore.schedulers.spacing.plan import Spacing


def explicit(text: str) -> Spacing | None:
    """The spacing of "sigmas:14.6,7,2,0" or "timesteps:999,500,250"; None for any other text.

    A list of sigmas is the whole schedule, its end included; timesteps are the network's, and the
    tail follows. Raises InputError for what is not such a list.

    >>> explicit("sigmas:14.6,7,2,0").steps
    3
    """
    kind, _, values = text.partition(":")
    if kind not in ("sigmas", "timesteps"):
        return None
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        raise InputError(f"cannot read the {kind} {values!r}: write numbers, 14.6,7,2,0") from None
    if any(not math.isfinite(number) or number < 0 for number in numbers):
        raise InputError(f"the {kind} {values!r} are not all finite numbers of at least 0")
    if any(after >= number for number, after in pairwise(numbers)):
        raise InputError(f"the {kind} {values!r} do not fall from each to the next")
    name = f"{kind}:{','.join(repr(number).removesuffix('.0') for number in numbers)}"
    if kind == "timesteps":
        return Spacing(name, lambda s, _: grids.at_timesteps(s, numbers), steps=len(numbers))
    if len(numbers) < 2:
        raise InputError("a list of sigmas holds at least two: where to start and where to end")
    *grid, last = numbers
    return Spacing(name, lambda s, _: curves.at_sigmas(s, grid), tail=last, steps=len(grid))
