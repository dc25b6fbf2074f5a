"""From a rule to a plan: a grid of noise levels and what happens at its two ends.

The reference implementations disagree about the ends, so they are data here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

from sdcore.errors import InputError
from sdcore.schedulers.noise_schedule import NoiseSchedule


class Grid(NamedTuple):
    """N falling sigmas, without the tail, and the timestep that the network is told at each."""

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]


Rule = Callable[[NoiseSchedule, int], Grid]
TAILS = ("zero", "sigma_min", "discard_penultimate")
Tail = Literal["zero", "sigma_min", "discard_penultimate"] | float
Start = Literal["sigma", "unit_variance", "unit_variance_at_most"]


@dataclass(frozen=True)
class Plan:
    """Everything a loop needs to know of its schedule, before it runs.

    Start from `noise * start_scale`; the picture's latents are `step.x_next * end_scale` of the
    last step.
    """

    sigmas: tuple[float, ...]  # N + 1
    timesteps: tuple[float, ...]  # N: what the network is told at sigmas[:-1]
    start_scale: float
    end_scale: float  # 1 unless the last sigma is not 0
    noise_schedule: NoiseSchedule

    def timestep(self, sigma: float) -> float:
        """t for the network: the grid's own on the grid, the noise schedule's elsewhere."""
        known = self._by_sigma.get(sigma)
        return self.noise_schedule.timestep(sigma) if known is None else known

    @cached_property
    def _by_sigma(self) -> dict[float, float]:
        return dict(zip(self.sigmas, self.timesteps, strict=False))


@dataclass(frozen=True)
class Spacing:
    """A rule, and what the references disagree about at its ends.

    tail: where the last step goes: to sigma 0, to the training table's least sigma, or to a sigma
        of one's own. "discard_penultimate" lays one point more, leaves out the last before sigma 0
        and ends there: what ComfyUI and A1111 do for DPM2, whose last steps are the costly ones.
    start: noise times the first sigma (k-diffusion, Euler), or times sqrt(1 + sigma^2), which has
        unit variance in the network's form (DDIM, DPM++ and `leading`). At SD's largest sigma they
        differ by 0.23 %. "unit_variance_at_most" is the second at the table's largest sigma and
        the first elsewhere (ComfyUI).
    end: where the last sigma is not 0, hand over x as it is (Euler), or in the network's form
        (DDIM).
    steps: how many the rule has where it is a list; None for any number.
    """

    name: str
    rule: Rule
    tail: Tail = "zero"
    start: Start = "sigma"
    end: Literal["as_is", "unit_variance"] = "as_is"
    steps: int | None = None

    def plan(self, schedule: NoiseSchedule, steps: int) -> Plan:
        """The sigmas of N = steps steps. Raises InputError where the rule has no room for them."""
        if type(steps) is not int or steps < 1:
            raise InputError(f"steps must be a whole number of at least 1, not {steps!r}")
        if self.steps is not None and steps != self.steps:
            raise InputError(f"{self.name} has {self.steps} steps, and steps says {steps}")
        sigmas, timesteps = self.rule(schedule, steps + (self.tail == "discard_penultimate"))
        if math.isinf(sigmas[0]):
            raise InputError(
                "the first step is at infinite sigma (zero terminal SNR), where eps says nothing "
                "of the picture; take a network that predicts v, or the scheduler euler, which "
                "starts just below"
            )
        if any(after >= sigma for sigma, after in pairwise(sigmas)):
            raise InputError(f"{self.name} spacing has no room for {steps} steps; take fewer")
        sigmas, timesteps = sigmas[:steps], timesteps[:steps]
        if isinstance(self.tail, str):
            last = schedule.sigmas[0] if self.tail == "sigma_min" else 0.0
        else:
            last = self.tail
        unit = self.start == "unit_variance" or (
            self.start == "unit_variance_at_most" and sigmas[0] >= schedule.sigmas[-1] * (1 - 1e-5)
        )
        start = math.hypot(1, sigmas[0]) if unit else sigmas[0]
        end = 1 / math.hypot(1, last) if self.end == "unit_variance" else 1.0
        return Plan((*sigmas, last), timesteps, start, end, schedule)
