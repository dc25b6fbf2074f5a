"""How a loop's sigmas are chosen: rules that lay a grid, and what happens at its two ends.

The reference implementations use the same words for different grids; here each variant is data. The
rules are from Lin et al. 2024 (arXiv 2305.08891, table 2) and Karras et al. 2022 (arXiv 2206.00364,
eq. 5).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Literal, NamedTuple

import torch

from sdcore.errors import InputError
from sdcore.schedulers.noise_schedule import NoiseSchedule


class Grid(NamedTuple):
    """N falling sigmas, without the tail, and the timestep that the network is told at each."""

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]


Rule = Callable[[NoiseSchedule, int], Grid]


def at_timesteps(schedule: NoiseSchedule, timesteps: Sequence[float]) -> Grid:
    """The grid of explicit timesteps. Raises InputError where one lies outside the table."""
    return Grid(tuple(map(schedule.sigma, timesteps)), tuple(map(float, timesteps)))


def linspace(schedule: NoiseSchedule, steps: int, *, drop: int = 0, whole: bool = False) -> Grid:
    """Evenly from the last timestep to 0, both included.

    drop=1 lays one point more and leaves out t = 0, as diffusers' DPM++ does. whole rounds to whole
    timesteps (DDIM, DPM++); else they are fractional and float32 (Euler).
    """
    stride = (len(schedule) - 1) / max(steps + drop - 1, 1)
    times = [i * stride for i in reversed(range(drop, steps + drop))]
    whole_or_float32 = map(round, times) if whole else torch.tensor(times).tolist()
    return at_timesteps(schedule, list(whole_or_float32))


def leading(schedule: NoiseSchedule, steps: int, *, offset: int = 1, drop: int = 0) -> Grid:
    """Whole strides from t = offset upwards, so the noisiest timesteps are left out.

    drop=1 divides by one step more and starts a stride higher, as diffusers' DPM++ does.
    """
    stride = len(schedule) // (steps + drop)
    return at_timesteps(schedule, [i * stride + offset for i in range(drop, steps + drop)][::-1])


def trailing(schedule: NoiseSchedule, steps: int) -> Grid:
    """Strides of T / N downwards from the last timestep, rounded; exactly N of them.

    numpy's arange, which diffusers takes, adds up (T - stride) - T, and the rounding of halves
    depends on it; it also yields N + 1 points for some N (61, 103 ...), of which the last, t = -1,
    is dropped here.
    """
    count = float(len(schedule))
    stride = (count - count / steps) - count
    return at_timesteps(schedule, [round(count + i * stride) - 1.0 for i in range(steps)])


def karras(
    schedule: NoiseSchedule,
    steps: int,
    *,
    within: Rule | None = None,
    whole: bool = False,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rho: float = 7.0,
) -> Grid:
    """Evenly in sigma^(1/rho) (Karras et al. 2022, eq. 5).

    The range is the training table's, or with `within` that of another rule's grid, as in
    diffusers' Euler and Heun; sigma_min and sigma_max override it. whole rounds the timestep that
    the network is told to a whole one, as diffusers' DPM++ does; sigma itself is not rounded.
    """
    base = schedule.sigmas[::-1] if within is None else within(schedule, steps).sigmas
    first = base[0] if sigma_max is None else sigma_max
    last = base[-1] if sigma_min is None else sigma_min
    high, low = first ** (1 / rho), last ** (1 / rho)
    stride = (low - high) / max(steps - 1, 1)
    between = [(high + i * stride) ** rho for i in range(1, steps - 1)]
    sigmas = [first, *between, last][:steps]  # ends exact: a root's power is not
    times = [schedule.timestep(sigma) for sigma in sigmas]
    return Grid(tuple(sigmas), tuple(float(round(t)) if whole else t for t in times))


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
    """A rule, and what the references disagree about at its ends, as data.

    tail: where the last step goes: sigma 0, or the training table's least sigma.
    start: noise times the first sigma (k-diffusion, Euler), or times sqrt(1 + sigma^2), which has
        unit variance in the network's form (DDIM, DPM++ and `leading`). At SD's largest sigma they
        differ by 0.23 %.
    end: where the last sigma is not 0, hand over x as it is (Euler), or in the network's form
        (DDIM).
    """

    name: str
    rule: Rule
    tail: Literal["zero", "sigma_min"] = "zero"
    start: Literal["sigma", "unit_variance"] = "sigma"
    end: Literal["as_is", "unit_variance"] = "as_is"

    def plan(self, schedule: NoiseSchedule, steps: int) -> Plan:
        """The sigmas of N = steps steps. Raises InputError where the rule has no room for them."""
        if type(steps) is not int or steps < 1:
            raise InputError(f"steps must be a whole number of at least 1, not {steps!r}")
        sigmas, timesteps = self.rule(schedule, steps)
        if any(after >= sigma for sigma, after in pairwise(sigmas)):
            raise InputError(f"{self.name} spacing has no room for {steps} steps; take fewer")
        if math.isinf(sigmas[0]):
            raise InputError(
                "the first step is at infinite sigma (zero terminal SNR), where eps says nothing "
                "of the picture; take the scheduler euler, which starts just below"
            )
        last = 0.0 if self.tail == "zero" else schedule.sigmas[0]
        start = sigmas[0] if self.start == "sigma" else math.hypot(1, sigmas[0])
        end = 1 / math.hypot(1, last) if self.end == "unit_variance" else 1.0
        return Plan((*sigmas, last), timesteps, start, end, schedule)


SPACINGS = ("leading", "trailing", "linspace", "karras")


def variants(
    offset: int,
    drop: int,
    whole: bool,
    base: str,
    karras_whole: bool = False,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> dict[str, Rule]:
    """The rules by the users' names, in one reference class's variant.

    base: the spacing whose range karras takes, "" for the training table's. The rest: see the
        rules.
    """
    rules: dict[str, Rule] = {
        "linspace": partial(linspace, drop=drop, whole=whole),
        "leading": partial(leading, offset=offset, drop=drop),
        "trailing": trailing,
    }
    within = rules[base] if base else None
    limits = {"sigma_min": sigma_min, "sigma_max": sigma_max}
    return {**rules, "karras": partial(karras, within=within, whole=karras_whole, **limits)}
