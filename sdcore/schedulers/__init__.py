"""Schedulers: a solver and a spacing on a noise schedule, picked by one name."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sdcore.errors import InputError, unknown
from sdcore.sampling import Solver
from sdcore.schedulers.config import SD15, fields_for, noise_schedule_of, spacing_of
from sdcore.schedulers.entry import Entry
from sdcore.schedulers.noise_schedule import NoiseSchedule
from sdcore.schedulers.own import load_solver
from sdcore.schedulers.spacing import SPACINGS, Grid, Plan, Spacing
from sdcore.schedulers.table import TABLE, find

__all__ = ["SPACINGS", "TABLE", "Entry", "Grid", "NoiseSchedule", "Plan", "Scheduler", "Spacing",
           "load_solver", "resolve"]  # fmt: skip


@dataclass(frozen=True)
class Scheduler:
    """What a user picks by one name. Everything in it is a value; nothing evolves."""

    name: str
    solver: Solver
    spacing: Spacing
    noise_schedule: NoiseSchedule
    prediction_type: str  # of the network, for the Denoiser

    def plan(self, steps: int) -> Plan:
        """The sigmas of so many steps. Raises InputError for steps < 1 or too many."""
        return self.spacing.plan(self.noise_schedule, steps)


def resolve(
    name: str | Solver | None = None,
    spacing: str | Spacing | None = None,
    eta: float | None = None,
    config: Mapping[str, Any] | None = None,
) -> Scheduler:
    """The scheduler of a name, as diffusers would run it with this checkpoint.

    name: ours ("dpmpp_2m"), diffusers' class, a web UI's label ("DPM++ 2M Karras"), a step
        function of one's own or the path of a file with one ("my_solver.py"); None takes the
        config's class.
    spacing: "leading", "trailing", "linspace", "karras" or a Spacing; None takes the name's, then
        the config's. One of one's own is Spacing("mine", rule).
    eta: how much noise DDIM and Euler add a step, 0 (none) to 1 (ancestral); None takes the name's.
    config: the contents of scheduler_config.json; None means SD 1.5's.

    Raises InputError, with near names, for what is unknown, and for an eta that is not finite,
    negative or not for this scheduler.
    """
    config = SD15 if config is None else config
    if name is None:
        name = _class_of(config)
    if isinstance(name, str) and not name.endswith(".py"):
        entry, named = find(name)
    else:  # one's own solver runs with Euler's conventions
        entry, named = find("euler")[0], None
        function = load_solver(name) if isinstance(name, str) else name
        label = getattr(function, "__name__", type(function).__name__)
        entry = Entry(name=label, solver=function, order=0, nfe=0, paper="")
    if named is not None and spacing is not None and spacing != named:
        raise InputError(f"scheduler {name!r} says {named} spacing, and spacing says {spacing!r}")
    fields = fields_for(entry.class_name, config)
    wanted = named if spacing is None else spacing
    if isinstance(wanted, str):
        if wanted.casefold() not in SPACINGS:
            raise unknown("spacing", wanted, SPACINGS)
        wanted = wanted.casefold()
    if not isinstance(wanted, Spacing):
        wanted = spacing_of(entry.class_name, fields, wanted)
    return Scheduler(
        name=entry.name,
        solver=_configured(entry, fields, eta),
        spacing=wanted,
        noise_schedule=noise_schedule_of(entry.class_name, fields),
        prediction_type=fields["prediction_type"],
    )


def _class_of(config: Mapping[str, Any]) -> str:
    """The config's own class. Raises InputError where it has none or one that is not here."""
    name = config.get("_class_name")
    if name not in {label for entry in TABLE for label in entry.labels}:
        known = ", ".join(entry.name for entry in TABLE)
        raise InputError(
            f"the checkpoint's own scheduler {name} is not here; choose one of {known}"
        )
    return name


def _configured(entry: Entry, fields: Mapping[str, Any], eta: float | None) -> Solver:
    """The entry's solver with those of its options bound that eta and the config set."""
    takes = inspect.signature(entry.solver).parameters
    options = {key: value for key, value in fields.items() if key in takes} | dict(entry.options)
    if eta is not None:
        if not math.isfinite(eta) or eta < 0:
            raise InputError(f"eta must be a finite number of at least 0, not {eta}")
        if "eta" not in takes and eta != 0:
            raise InputError(f"scheduler {entry.name} adds no noise, so it has no eta")
    if "eta" in takes and (eta is not None or entry.eta is not None):
        options["eta"] = entry.eta if eta is None else eta
    return partial(entry.solver, **options) if options else entry.solver
