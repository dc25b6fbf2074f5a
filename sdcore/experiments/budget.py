"""Equal cost: how many steps so many evaluations of the network allow."""

from __future__ import annotations

from sdcore.answering import over_parts
from sdcore.errors import InputError
from sdcore.experiments.cells import Cell, Studio
from sdcore.guidance import branch_names
from sdcore.schedulers.rehearsal import rehearse


def nfe_of(studio: Studio, cell: Cell) -> int:
    """How many evaluations a cell takes, every branch counted; from the solver on a stub."""
    _, settings, parts = studio.ready([cell])
    plan = parts.scheduler.plan(settings[0].steps)
    guidance = over_parts(parts.guidance, settings)
    branch_names(guidance, plan.sigmas)
    steps = rehearse(parts.scheduler.solver, plan.sigmas, None, guidance.branches)
    return sum(step.nfe for step in steps)


def steps_within(studio: Studio, cell: Cell, most: int) -> int:
    """The most steps that take at most `most` evaluations. Raises InputError where one is more."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if nfe_of(studio, cell.asking(steps=middle)) <= most:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        least = nfe_of(studio, cell.asking(steps=1))
        name = cell.options.get("scheduler", "this scheduler")
        raise InputError(f"one step of {name} takes {least} NFE: more than {most}")
    return low
