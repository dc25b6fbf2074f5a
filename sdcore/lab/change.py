"""What it costs to change the grid, the solver or the guidance midway, in worlds that are known.

Half of N steps from sigma 10 to 0.1, even in sigma^(1/7); then N steps even in log sigma for the
rest, where one thing is another. The error is that of the whole at sigma 0.1, against the exact
flow, in float64, the largest of 64 values.

    afresh     nothing changes but the grid, and the solver forgets: what to compare with
    grid       the solver goes on with what it remembers
    solver     it takes over from DPM++ 2M, which remembers x0, or from LMS, which remembers eps
    guidance   from scale 1 to 3

The old figures of docs/changes.md are those of commit f5398cd, whose solvers remembered tensors
without their sigmas: this file, copied to `sdcore/lab` of its tree, and `table` of all names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from sdcore.guidance import CFG
from sdcore.lab.order import Window, _apart, starting_values
from sdcore.lab.worlds import Gaussian, Mixture, World, denoiser
from sdcore.sampling import Denoise, Solver, sample
from sdcore.schedulers import resolve

KINDS = ("afresh", "grid", "solver", "guidance")
DONORS = ("dpmpp_2m", "lms")
FIRST = Window(10.0, 0.1)
SCALE = 3.0
COND, UNCOND = Gaussian(0.8, 0.4), Gaussian(-0.2, 0.4)
GUIDED = Gaussian(UNCOND.mean + SCALE * (COND.mean - UNCOND.mean), 0.4)


def rest(start: float, steps: int) -> list[float]:
    """The second grid: N steps even in log sigma."""
    end = FIRST.end
    return [start, *(start * (end / start) ** (i / steps) for i in range(1, steps)), end]


def error_after(kind: str, solver: Solver, steps: int = 20) -> float:
    """The error after this change, one of KINDS. The solver's noise is to be off."""
    worlds: tuple[World, World] = (Mixture(), Mixture())
    asked: tuple[Denoise, Denoise] = worlds
    donors = [solver]
    if kind == "solver":
        donors = [resolve(name).solver for name in DONORS]
    if kind == "guidance":
        worlds = (COND, GUIDED)
        asked = (denoiser(COND, UNCOND, CFG(1.0)), denoiser(COND, UNCOND, CFG(SCALE)))
    return max(_error(donor, solver, asked, worlds, kind == "afresh", steps) for donor in donors)


def _error(
    donor: Solver,
    solver: Solver,
    asked: tuple[Denoise, Denoise],
    worlds: tuple[World, World],
    forgets: bool,
    steps: int,
) -> float:
    first = FIRST(steps)
    x, middle = starting_values(first[0]), first[steps // 2]
    *_, step = islice(sample(asked[0], x, first, donor), steps // 2)
    state = step.state
    state = replace(state, index=0, memory=() if forgets else state.memory)
    *_, step = sample(asked[1], state, rest(middle, steps), solver)
    exact = worlds[1].flow(worlds[0].flow(x, first[0], middle), middle, FIRST.end)
    return _apart(step.x_next, exact)


def table(names: Sequence[str], steps: int = 20) -> Mapping[str, Mapping[str, float]]:
    """name -> kind -> error, of the solvers whose noise can be switched off.

    Raises InputError for an unknown name.
    """
    solvers = {name: silent(name) for name in names}
    return {
        name: {kind: error_after(kind, solver, steps) for kind in KINDS}
        for name, solver in solvers.items()
        if solver is not None
    }


def silent(name: str) -> Solver | None:
    """The solver with its noise off; None where it cannot be."""
    scheduler = resolve(name)
    if scheduler.entry.eta is not None:
        return resolve(name, eta=0.0).solver
    return None if scheduler.entry.stochastic else scheduler.solver
