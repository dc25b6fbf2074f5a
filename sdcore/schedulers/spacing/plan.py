"""From a rule to a plan: a grid of noise levels and what happens at its two ends.

The reference implementations disagree about the ends, so they are data here.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

from sdcore.errors import InputError
from sdcore.html_tables import html_table
from sdcore.schedulers.flow_schedule import Schedule
from sdcore.shown import short


class Grid(NamedTuple):
    """N falling sigmas, without the tail, and the timestep that the network is told at each."""

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]


Rule = Callable[[Schedule, int], Grid]
MOST_STEPS = 10_000  # beyond it a number of steps is a slip of the finger
SAME = 1e-6  # relative; sigmas that differ by less are one: 16 roundings of float32


@dataclass(frozen=True, repr=False)
class Plan:
    """Everything a loop needs to know of its schedule, before it runs.

    Start from `noise * start_scale`; the picture's latents are `step.x_next * end_scale` of the
    last step.
    """

    sigmas: tuple[float, ...]  # N + 1
    timesteps: tuple[float, ...]  # N: what the network is told at sigmas[:-1]
    start_scale: float
    end_scale: float  # 1 unless the last sigma is not 0
    noise_schedule: Schedule
    whole: bool = False  # the network is told the nearest whole timestep, whatever the sigma

    __repr__ = short

    def _repr_html_(self) -> str:
        rows = [
            (index, f"{t:.6g}", f"{sigma:.6g}", f"{after:.6g}", _h(sigma, after))
            for index, (t, (sigma, after)) in enumerate(
                zip(self.timesteps, pairwise(self.sigmas), strict=True)
            )
        ]
        return html_table(
            f"Plan: {len(rows)} steps", rows, ("step", "t", "sigma", "sigma_next", "h")
        )

    def sigma(self, t: float) -> float:
        """sigma at a timestep, by the noise schedule. Raises InputError outside of its table."""
        return self.noise_schedule.sigma(t)

    def timestep(self, sigma: float) -> float:
        """t for the network: the grid's own on the grid, the noise schedule's elsewhere.

        A stage inside a step may be at a sigma of the grid by another computation (DPM2 ancestral's
        middle is sqrt(sigma * sigma_next^2 / sigma)), so what is nearer than `SAME` is on the grid.
        """
        if (known := self._by_sigma.get(sigma)) is not None:
            return known
        sigmas, timesteps = self._rising
        i = bisect_left(sigmas, sigma)
        near = [j for j in (i - 1, i) if 0 <= j < len(sigmas)]
        j = min(near, key=lambda j: abs(sigmas[j] - sigma))
        if abs(sigmas[j] - sigma) <= SAME * sigma:
            return timesteps[j]
        t = self.noise_schedule.timestep(sigma)
        return float(round(t)) if self.whole else t

    @cached_property
    def _by_sigma(self) -> dict[float, float]:
        return dict(zip(self.sigmas, self.timesteps, strict=False))

    @cached_property
    def _rising(self) -> tuple[list[float], list[float]]:
        """The sigmas where steps begin, rising, and the timesteps there."""
        pairs = sorted(zip(self.sigmas[:-1], self.timesteps, strict=True))
        return [sigma for sigma, _ in pairs], [t for _, t in pairs]


def _h(sigma: float, sigma_next: float) -> str:
    """The step in lambda = -log sigma, as it is written."""
    return f"{math.log(sigma / sigma_next):.3g}" if sigma and sigma_next else "infinite"


@dataclass(frozen=True)
class Spacing:
    """A rule, and what the references disagree about at its ends.

    tail: where the last step goes: to sigma 0, to the training table's least sigma, or to a sigma
        of one's own.
    start: noise times the first sigma (k-diffusion, Euler), or times sqrt(1 + sigma^2), which has
        unit variance in the network's form (DDIM, DPM++ and `leading`). At SD's largest sigma they
        differ by 0.23 %.
    end: where the last sigma is not 0, hand over x as it is (Euler), or in the network's form
        (DDIM).
    steps: how many the rule has where it is a list; None for any number.
    written: the text that `resolve` reads as this rule; None where there is none.
    whole: the network is told the nearest whole timestep only, also inside a step (ComfyUI).
    upwards: the same sigmas from the tail to the first (inversion), where each step is told the
        timestep of its beginning, or ahead, as DDIM's inverse is, that of its end.
    """

    name: str
    rule: Rule
    tail: Literal["zero", "sigma_min"] | float = "zero"
    start: Literal["sigma", "unit_variance"] = "sigma"
    end: Literal["as_is", "unit_variance"] = "as_is"
    steps: int | None = None
    written: str | None = None
    whole: bool = False
    upwards: Literal["no", "told", "told_ahead"] = "no"

    def plan(self, schedule: Schedule, steps: int) -> Plan:
        """The sigmas of N = steps steps. Raises InputError where the rule has no room for them."""
        self._check_count(steps)
        sigmas, timesteps = self.rule(schedule, steps)
        self._check_fall(sigmas)
        last = schedule.sigmas[0] if self.tail == "sigma_min" else 0.0
        if not isinstance(self.tail, str):
            last = self.tail
            if last > sigmas[-1]:
                raise InputError(
                    f"the tail {last:g} is above the last step's sigma, {sigmas[-1]:.4g}: "
                    "take a smaller one"
                )
        start = sigmas[0] if self.start == "sigma" else schedule.spread(sigmas[0])
        end = 1 / schedule.spread(last) if self.end == "unit_variance" else 1.0
        if self.whole:
            timesteps = tuple(float(round(t)) for t in timesteps)
        if self.upwards == "no":
            return Plan((*sigmas, last), timesteps, start, end, schedule, self.whole)
        rising = timesteps[::-1]
        if self.upwards == "told":
            rising = (schedule.timestep(last), *rising[:-1])
        return Plan((last, *sigmas[::-1]), rising, 1 / end, 1 / start, schedule, self.whole)

    def _check_count(self, steps: int) -> None:
        if type(steps) is not int or steps < 1:
            raise InputError(f"steps must be a whole number of at least 1, not {steps!r:.40}")
        if steps > MOST_STEPS:
            raise InputError(f"{steps} steps are too many: at most {MOST_STEPS}")
        if self.steps is not None and steps != self.steps:
            raise InputError(f"{self.name} has {self.steps} steps, and steps says {steps}")

    def _check_fall(self, sigmas: Sequence[float]) -> None:
        if math.isinf(sigmas[0]):
            raise InputError(
                "the first step is at infinite sigma (zero terminal SNR), where eps says nothing "
                "of the picture; take a network that predicts v, or the scheduler euler, which "
                "starts just below"
            )
        if any(after >= sigma for sigma, after in pairwise(sigmas)):
            few = f"{self.name} spacing has no room for {len(sigmas)} steps; take fewer"
            raise InputError(few)


def without_penultimate(spacing: Spacing) -> Spacing:
    """One point more is laid, and the last before the tail left out.

    What ComfyUI and A1111 do for DPM2, whose steps into small sigmas are the worst.
    """

    def rule(schedule: Schedule, steps: int) -> Grid:
        sigmas, timesteps = spacing.rule(schedule, steps + 1)
        return Grid(sigmas[:-1], timesteps[:-1])

    return replace(spacing, rule=rule)
