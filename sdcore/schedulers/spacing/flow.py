"""Grids of flow matching, laid over s; the shift moves them, and sigma = s / (1 - s) follows.

The names are those of the spacings of a table that do the same. FlowMatchEuler lays linspace, UniPC
with flow sigmas trailing, DPM++ leading, Flux and ComfyUI simple.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from sdcore.errors import InputError
from sdcore.keywords import Range, keywords
from sdcore.schedulers.flow_schedule import FlowSchedule, Schedule, Shift, to_sigma
from sdcore.schedulers.spacing import sigmas as curves
from sdcore.schedulers.spacing.beta import quantile
from sdcore.schedulers.spacing.plan import Grid, Rule, Spacing
from sdcore.schedulers.spacing.sigmas import ramp
from sdcore.written import Written

Levels = Callable[[FlowSchedule, int], list[float]]  # (schedule, N) -> N falling s, moved


def linspace(schedule: FlowSchedule, steps: int) -> list[float]:
    """Evenly from 1 to 1/T, both included (FlowMatchEuler, SD3)."""
    return schedule.move.grid(ramp(1.0, 1 / schedule.length, steps))


def trailing(schedule: FlowSchedule, steps: int) -> list[float]:
    """As linspace with one point more, of which the last is left out (UniPC)."""
    return schedule.move.grid(ramp(1.0, 1 / schedule.length, steps + 1)[:-1])


def leading(schedule: FlowSchedule, steps: int) -> list[float]:
    """Evenly from 1 - 1/T down towards 0, which is left out (DPM++ and DEIS with flow sigmas)."""
    return schedule.move.grid([(1 - 1 / schedule.length) * (1 - i / steps) for i in range(steps)])


def simple(schedule: FlowSchedule, steps: int) -> list[float]:
    """1, 1 - 1/N ... 1/N, evenly (Flux; ComfyUI's cuts them to whole levels of the table)."""
    return schedule.move.grid([(steps - i) / steps for i in range(steps)])


def beta_levels(
    schedule: FlowSchedule, steps: int, *, a: float = 0.6, b: float = 0.6
) -> list[float]:
    """Levels of the table at the quantiles of a beta distribution (ComfyUI's `beta`)."""
    top = schedule.length - 1
    places = [round(quantile(1 - i / steps, a, b) * top) for i in range(steps)]
    return [schedule.levels[place] for place in places]


def over(levels: Levels, curve: curves.Curve) -> Levels:
    """A curve over s, between the ends of another grid, already moved (FlowMatchEuler)."""

    def rule(schedule: FlowSchedule, steps: int) -> list[float]:
        within = levels(schedule, steps)
        return curve(within[0], within[-1], steps)

    return rule


CURVES: Mapping[str, curves.Curve] = {
    "karras": curves.karras,
    "exponential": curves.exponential,
    "beta": curves.beta,
}
LEVELS: Mapping[str, Levels] = {
    "linspace": linspace,
    "normal": linspace,
    "trailing": trailing,
    "sgm_uniform": trailing,
    "leading": leading,
    "simple": simple,
    **{name: over(linspace, curve) for name, curve in CURVES.items()},
    "beta_t": beta_levels,
    "linear_quadratic": lambda schedule, steps: curves.linear_quadratic(1.0, 0.0, steps),
}


def rule_of(name: str, move: Shift | None = None) -> Rule:
    """The rule of a name. move: in place of the schedule's own shift.

    Raises InputError for a spacing that a flow does not have.
    """
    if name not in LEVELS:
        raise InputError(
            f"spacing {name} is of networks trained on a table of betas; "
            f"a flow has {', '.join(LEVELS)}"
        )

    def rule(schedule: Schedule, steps: int) -> Grid:
        if not isinstance(schedule, FlowSchedule):
            raise InputError(f"{name} with a shift is a spacing of flows, and this network is none")
        schedule = schedule if move is None else replace(schedule, move=move)
        return at_levels(schedule, LEVELS[name](schedule, steps))

    return rule


def shifted(written: Written) -> Spacing | None:
    """The spacing of "simple:shift=3", "linspace:mu=1.15,terminal=0.02"; None for a bare name.

    mu: the shift e^mu. Raises InputError for another option.
    """
    if written.name not in LEVELS or not written.options:
        return None

    def options(
        shift: Annotated[float, Range(0, above=True)] | None = None,
        mu: float | None = None,
        terminal: float | None = None,
    ) -> Shift:
        if shift is not None and mu is not None:
            raise InputError(f"spacing {written} says a shift, and mu: give one")
        by_mu = 1.0 if mu is None else math.exp(mu)
        return Shift(by_mu if shift is None else shift, terminal)

    move = options(**keywords(written.options, options, f"spacing {written.name}"))
    return Spacing(str(written), rule_of(written.name, move), start="unit_variance",
                   written=str(written))  # fmt: skip


def at_given(levels: Sequence[float], curve: str | None = None) -> Spacing:
    """The spacing of N given s, falling from 1, which the schedule's shift moves.

    curve: a name of `CURVES` that is laid between their ends then, as FlowMatchEuler does.
    """

    def rule(schedule: Schedule, steps: int) -> Grid:
        assert isinstance(schedule, FlowSchedule)  # nobody else knows s
        moved: Levels = lambda schedule, steps: schedule.move.grid(list(levels))  # noqa: E731
        laid = moved if curve is None else over(moved, CURVES[curve])
        return at_levels(schedule, laid(schedule, steps))

    return Spacing("given", rule, start="unit_variance", steps=len(levels))


def at_levels(schedule: FlowSchedule, levels: Sequence[float]) -> Grid:
    """The grid of these s. The network is told t = T s, at pure noise T itself."""
    return Grid(tuple(map(to_sigma, levels)), tuple(schedule.length * s for s in levels))
