"""A scheduler: what a user picks by one name, and how it is put together."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sdcore.errors import InputError
from sdcore.html_tables import html_table
from sdcore.process import FLOW, process_of
from sdcore.sampling import Solver
from sdcore.schedulers.config import (
    SD15,
    SPACING,
    class_of,
    fields_for,
    method_of,
    noise_schedule_of,
    spacing_of,
)
from sdcore.schedulers.conventions import CONVENTIONS, INVERSE, SAME_AS
from sdcore.schedulers.flow_config import flow_of
from sdcore.schedulers.flow_schedule import Schedule
from sdcore.schedulers.solver_choice import of_function, of_name, solver_options, with_options
from sdcore.schedulers.solvers.runge_kutta import with_tolerance
from sdcore.schedulers.spacing import Plan, Rule, Spacing
from sdcore.schedulers.spacing_choice import ending, spacing_asked, upwards, with_ends
from sdcore.schedulers.table import TABLE, find_spacing
from sdcore.schedulers.table_entry import Entry
from sdcore.shown import short
from sdcore.written import parse


@dataclass(frozen=True, repr=False)
class Scheduler:
    """What a user picks by one name. Everything in it is a value; nothing evolves."""

    name: str
    solver: Solver
    spacing: Spacing
    noise_schedule: Schedule
    prediction_type: str  # of the network, for the Denoiser
    entry: Entry  # what the solver says of itself
    eta: float | None = None  # share of fresh noise a step; None where there is no such thing
    written: str | None = None  # what `resolve` reads as this solver, eta apart; None: no such text

    __repr__ = short

    def _repr_html_(self) -> str:
        entry = self.entry
        rows = [
            ("solver", self.written or getattr(self.solver, "__name__", str(self.solver))),
            ("spacing", self.spacing.name),
            ("order", entry.order or "none claimed"),
            ("draws noise", "yes" if entry.stochastic else "no"),
            ("eta", "-" if self.eta is None else self.eta),
            ("the network says", self.prediction_type),
            ("paper", entry.paper or "-"),
        ]
        return html_table(f"Scheduler: {self.name}", rows)

    def plan(self, steps: int) -> Plan:
        """The sigmas of so many steps. Raises InputError for steps < 1 or too many."""
        return self.spacing.plan(self.noise_schedule, steps)


def resolve(
    name: str | Solver | Scheduler | None = None,
    spacing: str | Spacing | Rule | None = None,
    eta: float | None = None,
    config: Mapping[str, Any] | None = None,
    tail: str | float | None = None,
    corrected: bool = True,
) -> Scheduler:
    """The scheduler of a name, as diffusers or another tool would run it with this checkpoint.

    name: ours ("dpmpp_2m"), diffusers' class, k-diffusion's or ComfyUI's name, A1111's label
        ("DPM++ 2M Karras"), a step function of one's own or the path of a file with one
        ("my_solver.py"); None takes the config's class. A prefix says whose rules to follow:
        "comfyui:euler". Options of the solver follow a colon: "heun_churn:s_churn=10",
        "comfyui:dpm_2_ancestral:eta=0.5", "my_solver.py:Mine,scale=3". A functools.partial of one
        of our solvers runs on its grid. A Scheduler stays what it is.
    spacing: one of SPACINGS, also with a tool's prefix ("a1111:karras"), a list ("sigmas:14.6,2,0",
        "timesteps:999,500"), a function (noise_schedule, steps) -> sigmas of one's own or the file
        of one ("my_spacing.py"), or a Spacing; None takes the name's, then the config's:
        `"_spacing"` for every solver where it is there, else what the fields of the class say.
    eta: how much noise DDIM and Euler add a step, 0 (none) to 1 (ancestral); None takes the name's.
    config: the contents of scheduler_config.json; None means SD 1.5's.
    tail: where the last step goes: "zero", "sigma_min", "discard_penultimate" or a sigma; None
        takes the spacing's.
    corrected: whether a steps_offset other than 1 is set to 1, as diffusers' pipelines of SD do,
        and not those of SDXL and of latent consistency models.

    diffusers' inverse classes lay their grid upwards, from the picture to the noise.

    Raises InputError, with near names, for what is unknown, and for an eta that is not finite,
    negative or not for this scheduler.
    """
    if isinstance(name, Scheduler):
        return _as_it_is(name, spacing, eta, tail)
    config = SD15 if config is None else config
    flow = flow_of(config)
    if flow is not None:
        config, eta = flow.rest, flow.eta if eta is None and name is None else eta
    class_of(config)  # refuses a foreign one, whatever is asked for
    if name is None:
        name = _class_of(config)
    label = parse(name).name if isinstance(name, str) else ""
    chosen = of_name(name) if isinstance(name, str) else of_function(name)
    entry, tool = chosen.entry, chosen.tool
    class_name = entry.class_name
    conventions = CONVENTIONS[class_name]
    fields = fields_for(class_name, config, corrected)
    if SAME_AS.get(label, label) == class_name:
        method = method_of(conventions, fields)
        entry = entry if method is None else _entry(method, class_name)
    wanted, tool = spacing_asked(name, chosen.spacing, tool, spacing)
    if wanted is None and tool is None and flow is None and SPACING in config:
        wanted = find_spacing(str(config[SPACING]))[0]
    if flow is None:
        schedule, says = noise_schedule_of(conventions, fields, tool), fields["prediction_type"]
        of_class = partial(spacing_of, conventions, fields, schedule)
        around = {"process": process_of(says, schedule)}
    else:
        schedule, says, tool = flow.schedule, FLOW, None
        of_class = flow.spacing
        process = process_of(says, schedule)
        around = {"process": process, "variable": "s", "split": process.ancestral}
    laid = spacing if isinstance(spacing, Spacing) else with_ends(wanted, tool, of_class, entry)
    options = solver_options(entry, {**fields, **around}, chosen.options, eta)
    entry = with_tolerance(entry, {**getattr(entry.solver, "keywords", {}), **options})
    if label in INVERSE:
        if flow is not None:
            raise InputError(
                f"{label} is of networks trained on a table of betas; to go from a "
                "picture to the noise of a flow: sdcore invert"
            )
        laid, entry = upwards(laid, conventions), replace(entry, name=label)
    return Scheduler(
        name=entry.name,
        solver=with_options(entry.solver, options, fields, conventions),
        spacing=laid if tail is None else ending(laid, tail),
        noise_schedule=schedule,
        prediction_type=says,
        entry=entry,
        eta=options.get("eta"),
        written=chosen.written(entry, options),
    )


def _as_it_is(scheduler: Scheduler, spacing: object, eta: float | None, tail: object) -> Scheduler:
    """Raises InputError where it is to be another."""
    for option, value in (("spacing", spacing), ("tail", tail), ("eta", eta or None)):
        if value is not None:
            raise InputError(
                f"the scheduler {scheduler.name} is complete, and brings its own {option}: leave "
                f"{option} out, or give a name"
            )
    return scheduler


def _class_of(config: Mapping[str, Any]) -> str:
    """The config's own class. Raises InputError where it has none or one that is not here."""
    name = config.get("_class_name")
    if name not in [*INVERSE, *(label for entry in TABLE for label in entry.labels)]:
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
            same_class = entry.class_name == class_name
            name = name if same_class else class_name
            return replace(entry, name=name, class_name=class_name, noise="independent")
    raise InputError(f"{class_name} asks for the method {name}, which is not here")
