"""A spacing of the user's: one function (noise_schedule, steps) -> falling sigmas."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from sdcore.errors import InputError
from sdcore.extensions import find
from sdcore.keywords import keywords
from sdcore.schedulers.flow_schedule import Schedule
from sdcore.schedulers.spacing.plan import Grid, Spacing
from sdcore.schedulers.spacing.sigmas import at_sigmas
from sdcore.schedulers.spacing.variants import SPACINGS
from sdcore.user_file import blame, load_object
from sdcore.written import Value, Written


def load_spacing(written: Written) -> Spacing:
    """The spacing in a Python file: the function of this name, else `spacing`, or its namesake.

    The file is executed. Raises InputError as `sdcore.schedulers.load_solver` does.
    """
    path = Path(written.file or "")
    names = (written.name,) if written.name else ("spacing", path.stem)
    function = load_object(path, names, "spacing")
    options = keywords(written.options, function, f"the spacing of {path.name}", skip=2)
    spacing = user_spacing(function, options, path)
    return Spacing(written.name or path.stem, spacing.rule, written=str(written))


def installed_spacing(written: Written) -> Spacing | None:
    """The spacing that an installed package has under this name; None where none has.

    Raises InputError where its package does not import, or for an option that it has not.
    """
    if written.name in SPACINGS or (extension := find("spacing", written.name)) is None:
        return None
    function, what = extension.load(), f"the spacing {extension.name} of {extension.package}"
    options = keywords(written.options, function, what, skip=2)
    spacing = user_spacing(function, options, extension.file())
    return Spacing(extension.name, spacing.rule, written=str(written))


def user_spacing(
    function: Callable[..., Any],
    options: Mapping[str, Value] | None = None,
    path: Path | None = None,
) -> Spacing:
    """The spacing of a function.

    It is given the NoiseSchedule (its `sigmas` rise, from that of t = 0) and the number of steps N,
    and returns N falling sigmas above 0, N + 1 if the last is 0, or a Grid, whose timesteps the
    network is told. `plan` raises InputError for anything else.
    """
    name = getattr(function, "__name__", type(function).__name__)
    who = f"the spacing {name}" if path is None else f"the spacing of {path.name}"
    lay = partial(function, **options) if options else function

    def rule(schedule: Schedule, steps: int) -> Grid:
        try:
            answer = lay(schedule, steps)
            if isinstance(answer, Grid):
                return answer
            sigmas = answer.tolist() if isinstance(answer, Tensor) else list(map(float, answer))
        except Exception as error:
            if path is None:
                raise
            raise blame(error, path, "spacing") from error
        if len(sigmas) == steps + 1 and sigmas[-1] == 0:
            sigmas = sigmas[:-1]
        if len(sigmas) != steps:
            raise InputError(f"{who} returns {len(sigmas)} sigmas for {steps} steps")
        if any(after >= sigma for sigma, after in pairwise(sigmas)):
            raise InputError(f"{who} returns sigmas that do not fall from each to the next")
        return at_sigmas(schedule, sigmas)

    return Spacing(name, rule)
