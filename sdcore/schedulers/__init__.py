"""Schedulers: a solver and a spacing on a noise schedule, picked by one name."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sdcore.errors import InputError, unknown
from sdcore.process import VariancePreserving
from sdcore.sampling import Solver
from sdcore.schedulers.config import (
    CLASSES,
    KEEPS_EPS,
    SD15,
    fields_for,
    method_of,
    noise_schedule_of,
    spacing_of,
)
from sdcore.schedulers.entry import Entry
from sdcore.schedulers.noise_schedule import NoiseSchedule
from sdcore.schedulers.spacing import (
    SPACINGS,
    TOOLS,
    Grid,
    Plan,
    Spacing,
    Tool,
    listed,
    without_penultimate,
)
from sdcore.schedulers.table import TABLE, find, find_spacing
from sdcore.schedulers.thresholding import thresholded
from sdcore.schedulers.user_solver import load_solver

__all__ = ["SPACINGS", "TABLE", "TOOLS", "Entry", "Grid", "NoiseSchedule", "Plan",
           "Scheduler", "Spacing", "Tool", "load_solver", "resolve"]  # fmt: skip


@dataclass(frozen=True)
class Scheduler:
    """What a user picks by one name. Everything in it is a value; nothing evolves."""

    name: str
    solver: Solver
    spacing: Spacing
    noise_schedule: NoiseSchedule
    prediction_type: str  # of the network, for the Denoiser
    entry: Entry  # what the solver says of itself
    eta: float | None = None  # share of fresh noise a step; None where there is no such thing

    def plan(self, steps: int) -> Plan:
        """The sigmas of so many steps. Raises InputError for steps < 1 or too many."""
        return self.spacing.plan(self.noise_schedule, steps)


def resolve(
    name: str | Solver | None = None,
    spacing: str | Spacing | None = None,
    eta: float | None = None,
    config: Mapping[str, Any] | None = None,
    tail: str | float | None = None,
) -> Scheduler:
    """The scheduler of a name, as diffusers or another tool would run it with this checkpoint.

    name: ours ("dpmpp_2m"), diffusers' class, k-diffusion's or ComfyUI's name, A1111's label
        ("DPM++ 2M Karras"), a step function of one's own or the path of a file with one
        ("my_solver.py"); None takes the config's class. A prefix says whose rules to follow:
        "comfyui:euler".
    spacing: one of SPACINGS, also with a tool's prefix ("a1111:karras"), a list ("sigmas:14.6,2,0",
        "timesteps:999,500"), or a Spacing; None takes the name's, then the config's. One of one's
        own is Spacing("mine", rule).
    eta: how much noise DDIM and Euler add a step, 0 (none) to 1 (ancestral); None takes the name's.
    config: the contents of scheduler_config.json; None means SD 1.5's.
    tail: where the last step goes: "zero", "sigma_min", "discard_penultimate" or a sigma; None
        takes the spacing's.

    Raises InputError, with near names, for what is unknown, and for an eta that is not finite,
    negative or not for this scheduler.
    """
    config = SD15 if config is None else config
    if name is None:
        name = _class_of(config)
    if isinstance(name, str) and not name.endswith(".py"):
        entry, named, tool = find(name)
    else:  # one's own solver runs with Euler's conventions
        entry, named, tool = find("euler")
        if isinstance(name, str):
            function, label = load_solver(name), Path(name).stem
        else:
            function, label = name, getattr(name, "__name__", type(name).__name__)
        entry = Entry(name=label, solver=function, order=0, nfe=0, paper="")
    fields = fields_for(entry.class_name, config)
    if name in CLASSES:
        method = method_of(entry.class_name, fields)
        entry = entry if method is None else _entry(method, entry.class_name)
    chosen, tool = _spacing(name, named, tool, spacing)
    schedule = noise_schedule_of(entry.class_name, fields, tool)
    if isinstance(spacing, str) and isinstance(chosen, Spacing):  # a list, with the class's ends
        own = spacing_of(entry.class_name, fields, schedule, None)
        end = own.tail if chosen.tail == "zero" else chosen.tail
        chosen = replace(chosen, start=own.start, end=own.end, tail=end)
    elif not isinstance(chosen, Spacing):
        chosen = (
            spacing_of(entry.class_name, fields, schedule, chosen)
            if tool is None
            else tool.spacing(chosen, entry.name)
        )
    process = VariancePreserving(schedule, fields["prediction_type"])
    options = _options(entry, {**fields, "process": process}, eta)
    solver = partial(entry.solver, **options) if options else entry.solver
    if fields.get("thresholding"):
        ratio, most = fields["dynamic_thresholding_ratio"], fields["sample_max_value"]
        keep_eps = entry.class_name in KEEPS_EPS
        solver = thresholded(solver, ratio, most, keep_eps)
    return Scheduler(
        name=entry.name,
        solver=solver,
        spacing=chosen if tail is None else _ending(chosen, tail),
        noise_schedule=schedule,
        prediction_type=fields["prediction_type"],
        entry=entry,
        eta=options.get("eta"),
    )


def _spacing(
    name: object, named: str | None, tool: Tool | None, wanted: str | Spacing | None
) -> tuple[str | Spacing | None, Tool | None]:
    """What the scheduler's name and the spacing say together, and whose rules it follows."""
    if wanted is None:
        return named, tool
    if isinstance(wanted, str):
        explicit = listed(wanted)
        if explicit is None:
            found, told_tool, told = find_spacing(wanted)
            if named is not None and found != named:
                raise InputError(
                    f"scheduler {name!r} says {named} spacing, and spacing says {found!r}"
                )
            if told:
                return found, told_tool
            return found, tool if tool is not None and found in tool.spacings else None
        wanted = explicit
    if named is not None:
        raise InputError(f"scheduler {name!r} says {named} spacing, and spacing {wanted.name!r}")
    return wanted, tool


def _ending(spacing: Spacing, tail: str | float) -> Spacing:
    """The spacing with another tail. Raises InputError for what is none, or for a list's."""
    if spacing.name.startswith("sigmas:"):
        raise InputError("a list of sigmas ends where its last one says; leave the tail out")
    if tail == "zero" or tail == "sigma_min":
        return replace(spacing, tail=tail)
    if tail == "discard_penultimate":
        return without_penultimate(replace(spacing, tail="zero"))
    try:
        sigma = float(tail)
    except ValueError:
        tails = ("zero", "sigma_min", "discard_penultimate", "a sigma")
        raise unknown("tail", str(tail), tails) from None
    if not 0 <= sigma < math.inf:
        raise InputError(f"the tail is a finite sigma of at least 0, not {tail}")
    return replace(spacing, tail=sigma)


def _class_of(config: Mapping[str, Any]) -> str:
    """The config's own class. Raises InputError where it has none or one that is not here."""
    name = config.get("_class_name")
    if name not in [label for entry in TABLE for label in entry.labels]:
        known = ", ".join(entry.name for entry in TABLE)
        raise InputError(
            f"the checkpoint's own scheduler {name} is not here; choose one of {known}"
        )
    return name


def _entry(name: str, class_name: str) -> Entry:
    """The entry of this name, with the conventions of this class, and its name if they differ.

    diffusers draws independently where k-diffusion has Brownian paths.
    """
    for entry in TABLE:
        if entry.name == name:
            own = entry.class_name == class_name
            name = name if own else class_name
            return replace(entry, name=name, class_name=class_name, noise="independent")
    raise InputError(f"{class_name} asks for the method {name}, which is not here")


def _options(entry: Entry, fields: Mapping[str, Any], eta: float | None) -> dict[str, Any]:
    """Those of the solver's options that the entry, the config and eta set."""
    takes = inspect.signature(entry.solver).parameters
    options = {key: value for key, value in fields.items() if key in takes} | dict(entry.options)
    if eta is not None:
        if not math.isfinite(eta) or eta < 0:
            raise InputError(f"eta must be a finite number of at least 0, not {eta}")
        if "eta" not in takes and eta != 0:
            raise InputError(f"scheduler {entry.name} adds no noise, so it has no eta")
    if "eta" in takes and (eta is not None or entry.eta is not None):
        options["eta"] = entry.eta if eta is None else eta
    return options
