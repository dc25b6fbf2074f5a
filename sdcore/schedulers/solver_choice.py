"""The solver that is asked for: what its name says by itself, and the options it is given."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sdcore.errors import InputError
from sdcore.keywords import keywords
from sdcore.sampling import Solver
from sdcore.schedulers.config import supported_by
from sdcore.schedulers.conventions import CONVENTIONS, INVERSE, SAME_AS, Conventions
from sdcore.schedulers.solvers.runge_kutta import nfe
from sdcore.schedulers.spacing import Tool
from sdcore.schedulers.table import entry_of, find
from sdcore.schedulers.table_entry import Entry
from sdcore.schedulers.tableau import Tableau
from sdcore.schedulers.thresholding import thresholded
from sdcore.schedulers.user_solver import ARGUMENTS, check_takes, load_solver
from sdcore.written import Value, Written, format_value, parse

_INNER = ("process", "solver", "split")  # a solver's keywords that are no options


@dataclass(frozen=True)
class SolverChoice:
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


def of_name(name: str) -> SolverChoice:
    """The solver of a name or of a file. Raises InputError where there is none."""
    written = parse(name)
    if written.file is None:
        name = SAME_AS[written.name] if written.name in INVERSE else written.name
        entry, spacing, tool = find(name)
        return SolverChoice(entry, spacing, tool, written.options)
    solver = load_solver(written.file, written.name, written.options)
    label = written.name or Path(written.file).stem
    return SolverChoice(_own_entry(label, solver), file=written)


def of_function(solver: Solver) -> SolverChoice:
    """A function as it stands: with the entry of ours that it is, or else as one's own.

    Raises InputError where it does not take a solver's arguments.
    """
    bound = getattr(solver, "keywords", {})
    known = entry_of(solver)
    if known is None or isinstance(bound.get("tableau"), Tableau):
        label = getattr(getattr(solver, "func", solver), "__name__", type(solver).__name__)
        check_takes(solver, f"the solver {label}")
        return SolverChoice(_own_entry(label, solver), writable=False)
    takes = inspect.signature(solver).parameters
    options = {key: takes[key].default for key in (*known.options, *bound) if key not in _INNER}
    eta = takes["eta"].default if "eta" in takes else None
    plain = (bool, int, float, str, tuple, type(None))
    writable = all(isinstance(value, plain) for value in options.values())
    return SolverChoice(replace(known, eta=eta), options=options, writable=writable)


def _own_entry(label: str, solver: Solver) -> Entry:
    """One's own solver runs with Euler's conventions; a tableau says what it claims.

    It may say its `noise`, as an Entry does.
    """
    tableau = getattr(solver, "keywords", {}).get("tableau")
    if isinstance(tableau, Tableau):
        return Entry(label, solver, tableau.order, nfe(tableau), tableau.source)
    noise: Any = getattr(solver, "noise", "independent")
    return Entry(name=label, solver=solver, order=0, nfe=0, paper="", noise=noise)


def solver_options(
    entry: Entry,
    fields: Mapping[str, Any],
    asked: Mapping[str, Value] | None,
    eta: float | None,
) -> dict[str, Any]:
    """Those of the solver's options that the config, the entry, the name and eta set, in turn.

    fields: of the config, and of what lies around the solver. asked: those of the name.
    Raises InputError for an option that it has not, and for an eta that is not its own.
    """
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


def with_options(
    solver: Solver, options: Mapping[str, Any], fields: Mapping[str, Any], conventions: Conventions
) -> Solver:
    """The solver with its options, and with dynamic thresholding where the config has it."""
    solver = partial(solver, **options) if options else solver
    if not fields.get("thresholding"):
        return solver
    ratio, most = fields["dynamic_thresholding_ratio"], fields["sample_max_value"]
    return thresholded(solver, ratio, most, conventions.keeps_eps)
