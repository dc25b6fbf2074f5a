"""Everything that can be said of a stranger's solver: each law, and its order."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature, unwrap
from pathlib import Path
from typing import Any

from torch import Tensor

from sdcore.errors import InputError
from sdcore.lab import laws
from sdcore.lab.laws import Law
from sdcore.lab.order import COUNTS, Convergence, measure
from sdcore.lab.order_conditions import MOST, broken_condition
from sdcore.lab.setting import EXACT, SINGLE, Setting
from sdcore.sampling import Solver, Step
from sdcore.schedulers import SPACINGS, Scheduler, resolve
from sdcore.schedulers.tableau import Tableau

CLASSIC = ("leading", "trailing", "linspace", "karras")
FEW = (1, 2, 8)  # N for the laws of purity, on the classic spacings
SOME = (1, 2, 3, 8, 20)  # N on every spacing, for what the sigmas may break
IN_FLOAT32 = (10, 20, 40, 80)  # N whose errors are above its rounding
EVERY = range(1, 61)  # N for constant eps, on the classic spacings


@dataclass(frozen=True)
class Finding:
    """One law, and whether the solver keeps it."""

    law: str
    holds: bool
    detail: str = ""  # what is broken and where, or how much was tried


@dataclass(frozen=True)
class Report:
    """What `check` found."""

    findings: tuple[Finding, ...]
    nfe: tuple[int, ...]  # model evaluations of each of 8 steps into sigma 0; () if it cannot run
    draws: int  # noise tensors drawn in them
    convergence: Convergence | None  # None where nothing could be measured

    @property
    def holds(self) -> bool:
        """Whether every law is kept."""
        return all(finding.holds for finding in self.findings)


def check(solver: Solver | Scheduler, claimed: int | None = None, float32: bool = False) -> Report:
    """Run a solver through every law, and measure its order.

    solver: tried on every spacing; a Scheduler is tried on the grids that it lays itself, alone.
    claimed: an order that it must reach; None measures only.
    float32: it computes in float32 whatever x is, as diffusers' do, and may round so much.

    What the solver raises is not raised here: it becomes a finding with the line. One that does not
    run, or not to numbers, is told the first law only.
    """
    own = solver if isinstance(solver, Scheduler) else None
    solver = solver.solver if isinstance(solver, Scheduler) else solver
    classic, spacings = (CLASSIC, SPACINGS) if own is None else ((own,), (own,))
    lay = partial(settings, unit=SINGLE if float32 else EXACT)
    few, everywhere = list(lay(FEW, classic)), list(lay(SOME, spacings, every_start=True))
    (first, answers_well), *others = laws.LAWS.items()
    findings = [_try(first, answers_well, solver, everywhere)]

    ran = _eight_steps(solver, own)
    if isinstance(ran, str):  # each other law would fail of this, and say something misleading
        broken = [each for each in findings if not each.holds] or [Finding(first, False, ran)]
        return Report(tuple(broken), (), 0, None)
    findings += [_try(name, law, solver, few) for name, law in others]
    findings += _of_tableau(solver)
    nfe, draws = tuple(step.nfe for step in ran), ran[-1].draws
    quiet = _without_noise(solver)
    if draws:
        law = "exact in the world of one picture"
        findings.append(_try(law, laws.exact_at_a_point, solver, everywhere))
    if not draws or quiet is not solver:
        everywhere += lay(EVERY, classic, every_start=True)
        law = "exact for constant eps" + (", eta 0" if draws else "")
        findings.append(_try(law, laws.exact_for_constant_eps, quiet, everywhere))

    grids = None if own is None else lambda steps: own.plan(steps).sigmas
    counts = IN_FLOAT32 if float32 else COUNTS
    measured = _guarded(lambda: measure("", quiet, grids, counts, claimed), quiet)
    if isinstance(measured, str):
        findings.append(Finding("converges", False, measured))
        return Report(tuple(findings), nfe, draws, None)
    of = "order" if measured.how == "flow" else "order of the variance"
    asked = "" if claimed is None else f", {claimed} claimed"
    at_least = max(claimed or 0, 1) - 0.15
    findings.append(
        Finding("converges", measured.order >= at_least, f"{of} {measured.order:.2f}{asked}")
    )
    return Report(tuple(findings), nfe, draws, measured)


def _of_tableau(solver: Solver) -> list[Finding]:
    """Whether a tableau from a file has the order that it claims; [] of any other solver."""
    tableau = getattr(solver, "keywords", {}).get("tableau")
    if not isinstance(tableau, Tableau):
        return []
    broken = broken_condition(tableau)
    detail = broken or f"up to order {min(tableau.order, MOST)}"
    return [Finding("the order conditions of its tableau", not broken, detail)]


def settings(
    counts: Iterable[int],
    spacings: Iterable[str | Scheduler],
    every_start: bool = False,
    unit: float = EXACT,
) -> Iterator[Setting]:
    """Runs of N steps on these spacings: from the first sigma and the middle, or from three places.

    N that a spacing refuses, as too many for it, are left out.
    """
    for name in spacings:
        scheduler = resolve("euler", name) if isinstance(name, str) else name
        for steps in counts:
            try:
                sigmas = scheduler.plan(steps).sigmas
            except InputError:
                continue
            starts = {0, steps // 3, steps - 1} if every_start else {0, steps // 2}
            for start in sorted(starts):
                yield Setting(sigmas, start, name=scheduler.spacing.name, unit=unit)


def _eight_steps(solver: Solver, own: Scheduler | None) -> list[Step] | str:
    """8 steps, into sigma 0 or where its own grid ends, or what is wrong with them."""
    laid = resolve("euler", "karras") if own is None else own
    setting = Setting(laid.plan(8).sigmas)
    ran = _guarded(lambda: list(setting.run(solver)), solver)
    if isinstance(ran, str):
        return ran
    end = ran[-1].x_next
    return ran if isinstance(end, Tensor) and end.isfinite().all() else "8 steps end at no number"


def _without_noise(solver: Solver) -> Solver:
    """The solver with eta 0 where it has an eta, else itself."""
    function: Callable[..., Any] = solver
    return partial(function, eta=0.0) if "eta" in signature(function).parameters else solver


def _try(name: str, law: Law, solver: Solver, tried: Sequence[Setting]) -> Finding:
    """The first setting in which the law is broken, or that there is none."""
    for setting in tried:
        broken = _guarded(partial(law, solver, setting), solver)
        if broken is not None:
            return Finding(name, False, f"{broken} ({setting})")
    return Finding(name, True, f"{len(tried)} runs")


def _guarded(call: Callable[[], Any], solver: Solver) -> Any:
    """What `call` returns; where it raises, one line that names the solver's line."""
    try:
        return call()
    except InputError as error:  # of a file's solver, which names its line (user_solver.py)
        return str(error)
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        code = getattr(unwrap(getattr(solver, "func", solver)), "__code__", None)
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if code and frame.filename == code.co_filename]
        return f"{Path(own[-1].filename).name}, line {own[-1].lineno}: {said}" if own else said
