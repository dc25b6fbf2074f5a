"""A scheduler: what a user picks by one name, and how it is put together."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sdcore.errors import InputError, unknown
from sdcore.html_tables import html_table
from sdcore.keywords import keywords
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
    supported_by,
)
from sdcore.schedulers.conventions import CONVENTIONS, INVERSE, SAME_AS, Conventions
from sdcore.schedulers.flow_config import flow_of
from sdcore.schedulers.flow_schedule import Schedule
from sdcore.schedulers.solvers.runge_kutta import nfe
from sdcore.schedulers.spacing import (
    TOOLS,
    Plan,
    Rule,
    Spacing,
    Tool,
    explicit,
    installed_spacing,
    load_spacing,
    shifted,
    user_spacing,
    without_penultimate,
)
from sdcore.schedulers.table import TABLE, entry_of, find, find_spacing
from sdcore.schedulers.table_entry import Entry
from sdcore.schedulers.tableau import Tableau
from sdcore.schedulers.thresholding import thresholded
from sdcore.schedulers.user_solver import ARGUMENTS, load_solver
from sdcore.shown import short
from sdcore.written import Value, Written, format_value, parse

_INNER = ("process", "solver", "split")  # a solver's keywords that are no options


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
    chosen = _named(name) if isinstance(name, str) else _function(name)
    entry, tool = chosen.entry, chosen.tool
    class_name = entry.class_name
    conventions = CONVENTIONS[class_name]
    fields = fields_for(class_name, config, corrected)
    if SAME_AS.get(label, label) == class_name:
        method = method_of(conventions, fields)
        entry = entry if method is None else _entry(method, class_name)
    wanted, tool = _spacing(name, chosen.spacing, tool, spacing)
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
    laid = spacing if isinstance(spacing, Spacing) else _with_ends(wanted, tool, of_class, entry)
    options = _options(entry, {**fields, **around}, chosen.options, eta)
    if {**getattr(entry.solver, "keywords", {}), **options}.get("rtol"):
        entry = replace(entry, adaptive=True)  # a Runge-Kutta pair that was given a tolerance
    if label in INVERSE:
        if flow is not None:
            raise InputError(
                f"{label} is of networks trained on a table of betas; to go from a "
                "picture to the noise of a flow: sdcore invert"
            )
        laid, entry = _inverse(laid, conventions), replace(entry, name=label)
    return Scheduler(
        name=entry.name,
        solver=_bound(entry.solver, options, fields, conventions),
        spacing=laid if tail is None else _ending(laid, tail),
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


def _bound(
    solver: Solver, options: Mapping[str, Any], fields: Mapping[str, Any], conventions: Conventions
) -> Solver:
    """The solver with its options, and with dynamic thresholding where the config has it."""
    solver = partial(solver, **options) if options else solver
    if not fields.get("thresholding"):
        return solver
    ratio, most = fields["dynamic_thresholding_ratio"], fields["sample_max_value"]
    return thresholded(solver, ratio, most, conventions.keeps_eps)


def _inverse(spacing: Spacing, conventions: Conventions) -> Spacing:
    """The spacing upwards: DDIM tells the t of the step's end, DPM-Solver, from sigma_min, its own.

    log sigma, in which DPM-Solver steps, has no sigma 0 to start from.
    """
    if conventions.form == "unit_variance":
        return replace(spacing, upwards="told_ahead")
    return replace(
        spacing, upwards="told", tail="sigma_min" if spacing.tail == "zero" else spacing.tail
    )


@dataclass(frozen=True)
class _Chosen:
    """What a name says by itself, whatever the config is."""

    entry: Entry
    spacing: str | None = None
    tool: Tool | None = None
    options: Mapping[str, Value] | None = None
    file: Written | None = None  # where the solver is from a file
    writable: bool = True

    def written(self, entry: Entry, options: Mapping[str, Any]) -> str | None:
        """The text of this solver with the options that were given, as they were understood."""
        if not self.writable:
            return None
        given = {} if self.options is None else self.options
        given = {key: options.get(key, value) for key, value in given.items() if key != "eta"}
        if self.file is not None:
            kept = {key: value for key, value in self.file.options.items() if key != "eta"}
            return str(replace(self.file, options=kept))
        try:
            return str(Written(entry.name, given))
        except InputError:
            return None


def _named(name: str) -> _Chosen:
    """The solver of a name or of a file."""
    written = parse(name)
    if written.file is None:
        name = SAME_AS[written.name] if written.name in INVERSE else written.name
        entry, spacing, tool = find(name)
        return _Chosen(entry, spacing, tool, written.options)
    solver = load_solver(written.file, written.name, written.options)
    label = written.name or Path(written.file).stem
    return _Chosen(_own_entry(label, solver), file=written)


def _function(solver: Solver) -> _Chosen:
    """A function as it stands: with the entry of ours that it is, or else as one's own."""
    bound = getattr(solver, "keywords", {})
    known = entry_of(solver)
    if known is None or isinstance(bound.get("tableau"), Tableau):
        label = getattr(getattr(solver, "func", solver), "__name__", type(solver).__name__)
        return _Chosen(_own_entry(label, solver), writable=False)
    takes = inspect.signature(solver).parameters
    options = {key: takes[key].default for key in (*known.options, *bound) if key not in _INNER}
    eta = takes["eta"].default if "eta" in takes else None
    plain = (bool, int, float, str, tuple, type(None))
    writable = all(isinstance(value, plain) for value in options.values())
    return _Chosen(replace(known, eta=eta), options=options, writable=writable)


def _own_entry(label: str, solver: Solver) -> Entry:
    """One's own solver runs with Euler's conventions; a tableau says what it claims.

    It may say its `noise`, as an Entry does.
    """
    tableau = getattr(solver, "keywords", {}).get("tableau")
    if isinstance(tableau, Tableau):
        return Entry(label, solver, tableau.order, nfe(tableau), tableau.source)
    noise: Any = getattr(solver, "noise", "independent")
    return Entry(name=label, solver=solver, order=0, nfe=0, paper="", noise=noise)


def _spacing(
    name: object,
    named: str | None,
    tool: Tool | None,
    wanted: str | Spacing | Callable[..., Any] | None,
) -> tuple[str | Spacing | None, Tool | None]:
    """What the scheduler's name and the spacing say together, and whose rules it follows."""
    if wanted is None:
        return named, tool
    if isinstance(wanted, str):
        given, prefixed = _explicit(wanted)
        tool = tool if prefixed is None else prefixed
        if given is None:
            chosen, its_tool, prefixed = find_spacing(wanted)
            if named is not None and chosen != named:
                raise InputError(
                    f"scheduler {name!r} says {named} spacing, and spacing says {chosen!r}"
                )
            if prefixed:
                return chosen, its_tool
            return chosen, tool if tool is not None and chosen in tool.spacings else None
        wanted = given
    elif not isinstance(wanted, Spacing):
        wanted = user_spacing(wanted)
    if named is not None:
        raise InputError(f"scheduler {name!r} says {named} spacing, and spacing {wanted.name!r}")
    return wanted, tool


def _explicit(text: str) -> tuple[Spacing | None, Tool | None]:
    """The spacing of a list or of a file, and whose prefix a list has; None where it is a name."""
    key, _, rest = text.strip().partition(":")
    tool = TOOLS.get(key.casefold())
    spacing = explicit(text.strip() if tool is None else rest)
    if spacing is not None:
        return spacing, tool
    written = parse(text) if text.strip() else None
    if written is None:
        return None, None
    if written.file is None:
        return shifted(written) or installed_spacing(written), None
    return load_spacing(written), None


def _with_ends(
    laid: str | Spacing | None,
    tool: Tool | None,
    of_class: Callable[[str | None], Spacing],
    entry: Entry,
) -> Spacing:
    """The spacing of a name, as the class or the tool lays it; the user's, with the class's ends.

    of_class: the class's spacing of a name, None for its own.
    """
    if not isinstance(laid, Spacing):
        laid = of_class(laid) if tool is None else tool.spacing(laid, entry.name)
        return replace(laid, written=laid.name)
    usual = of_class(None)
    tail = usual.tail if laid.tail == "zero" else laid.tail
    laid = replace(laid, start=usual.start, end=usual.end, tail=tail)
    if laid.steps is None:
        return laid
    # a list, which has no name of a tool's by itself
    name = laid.name if tool is None else f"{tool.key}:{laid.name}"
    return replace(laid, name=name, written=name, whole=tool is not None and tool.whole)


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


def _options(
    entry: Entry,
    fields: Mapping[str, Any],
    asked: Mapping[str, Value] | None,
    eta: float | None,
) -> dict[str, Any]:
    """Those of the solver's options that the config, the entry, the name and eta set, in turn."""
    takes = inspect.signature(entry.solver).parameters
    bound = getattr(entry.solver, "keywords", {})
    usual = partial(entry.solver, **entry.options)  # whose defaults a refusal names
    given = {} if asked is None else asked
    given = keywords(given, usual, f"scheduler {entry.name}", len(ARGUMENTS), _INNER)
    supported = supported_by(CONVENTIONS[entry.class_name])
    for key, value in given.items():
        if key in supported and value not in supported[key]:
            values = " or ".join(format_value(each) for each in supported[key])
            raise InputError(f"scheduler {entry.name} has {key}={value}: it is {values}")
    named = given.pop("eta", None)
    if named is not None and eta is not None and named != eta:
        raise InputError(f"scheduler {entry.name} says eta {named:g}, and eta says {eta:g}")
    eta = next((value for value in (eta, named, bound.get("eta")) if value is not None), None)
    fields = {key: value for key, value in fields.items() if key in takes and key not in bound}
    options = {**fields, **entry.options, **given}
    if eta is not None:
        if not math.isfinite(eta) or eta < 0:
            raise InputError(f"eta must be a finite number of at least 0, not {eta}")
        if "eta" not in takes and eta != 0:
            raise InputError(f"scheduler {entry.name} adds no noise, so it has no eta")
    if "eta" in takes and (eta is not None or entry.eta is not None):
        options["eta"] = entry.eta if eta is None else eta
    return options
