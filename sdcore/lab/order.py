"""How fast a solver converges: its error against N in worlds whose answer is known.

A run into sigma 0 has three errors, which are told apart here:

* of the method: at the last sigma above 0, against the exact flow, in float64;
* of the last interval, sigma_min -> 0, where most solvers take one first-order step: what is off
  at the end if that step alone starts from the exact x. It does not shrink with N where the
  spacing's sigma_min does not, and then hides every order;
* of rounding: the same run in float32 against float64.

The order is the slope of the first, log(error) / log(1 / N), between the two largest N.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.lab.worlds import Gaussian, Mixture, World
from sdcore.sampling import Noise, Solver, State, Step, sample
from sdcore.schedulers import resolve
from sdcore.schedulers.spacing.plan import MOST_STEPS

COUNTS = (10, 20, 40, 80, 160, 320)
FLOOR = 1e-12  # below it an error in float64 is rounding and has no slope

Sigmas = Callable[[int], Sequence[float]]  # N -> N + 1 sigmas


@dataclass(frozen=True)
class Window:
    """N intervals from start to end > 0 evenly in sigma^(1 / rho) (Karras et al. 2022, eq. 5).

    Uneven in sigma and in log sigma, so that a rule for even steps does not pass by luck.
    """

    start: float = 10.0
    end: float = 0.1
    rho: float = 7.0

    def __call__(self, steps: int) -> list[float]:
        """The N + 1 sigmas of N steps, in Karras' spacing."""
        high, low = self.start ** (1 / self.rho), self.end ** (1 / self.rho)
        inner = [(high + i / steps * (low - high)) ** self.rho for i in range(1, steps)]
        return [self.start, *inner, self.end]


@dataclass(frozen=True)
class Convergence:
    """A solver's errors, one for each N of counts. All are maxima over latent values."""

    name: str
    claimed: int | None  # None: it claims nothing
    how: str  # "flow": against the ODE; "variance": of the end's distribution, for noise
    counts: tuple[int, ...]
    nfe: tuple[int, ...]  # model evaluations of the whole run
    errors: tuple[float, ...]  # of the method
    last: tuple[float, ...] = field(default=())  # of the last interval; () where it ends above 0
    rounding: tuple[float, ...] = field(default=())

    @property
    def order(self) -> float:
        """The measured order; infinite where the method is exact in this world."""
        return slope(self.counts, self.errors)

    @property
    def holds(self) -> bool:
        """No worse than claimed, up to the 0.15 that the largest N still lacks to its limit."""
        return self.claimed is None or self.order >= self.claimed - 0.15


def slope(counts: Sequence[int], errors: Sequence[float]) -> float:
    """Minus the slope of log error over log N between the last two errors above rounding."""
    pairs = [(n, e) for n, e in zip(counts, errors, strict=True) if not e <= FLOOR]
    if len(pairs) < 2:
        return math.inf
    (n, before), (m, after) = pairs[-2:]
    return math.log(before / after) / math.log(m / n) if math.isfinite(after) else math.nan


def measure(
    name: str,
    solver: Solver,
    sigmas: Sigmas | None = None,
    counts: Sequence[int] = COUNTS,
    claimed: int | None = None,
    world: World | None = None,
    brownian: bool = False,
    rounding: bool = True,
) -> Convergence:
    """Run the solver at every N and compare.

    solver: with its noise switched off, if it can be. One that still draws is measured by the
        variance of its end in a Gaussian world, propagated exactly (see `moments`).
    sigmas: N -> the sigmas, from a noise schedule's spacing or a Window (the default).
    world: by default Mixture(); for a solver that draws a Gaussian is needed, and taken.
    brownian: the draws of overlapping intervals hang together as increments of one path.
    rounding: also run in float32, which takes as long again.
    """
    if max(counts) > MOST_STEPS:
        raise InputError(f"{max(counts)} steps are too many: at most {MOST_STEPS}")
    sigmas = Window() if sigmas is None else sigmas
    world = Mixture() if world is None else world
    grids = [list(sigmas(count)) for count in counts]
    if _draws(solver, grids[0]):
        gaussian = world if isinstance(world, Gaussian) else Gaussian(0.3, 0.5)
        variances = [_variance_error(solver, grid, gaussian, brownian) for grid in grids]
        errors, nfe = zip(*variances, strict=True)
        return Convergence(name, claimed, "variance", tuple(counts), nfe, errors)
    rows = [_flow_errors(solver, grid, world) for grid in grids]
    nfe, errors, last = zip(*rows, strict=True)
    return Convergence(
        name,
        claimed,
        "flow",
        tuple(counts),
        nfe,
        errors,
        last if grids[0][-1] == 0 else (),
        tuple(_rounding(solver, grid, world) for grid in grids) if rounding else (),
    )


def measure_scheduler(
    name: str,
    spacing: str | None = None,
    window: Window | None = None,
    counts: Sequence[int] = COUNTS,
    rounding: bool = True,
) -> Convergence:
    """The order of a scheduler by any of its names, or of the solver in a user's .py file.

    Its noise is switched off where it has an eta. On a spacing of the training table if one is
    named, else on the window. Raises InputError for what is unknown or does not fit.
    """
    scheduler = resolve(name, spacing, eta=0.0)
    entry = scheduler.entry
    sigmas = Window() if window is None else window
    return measure(
        scheduler.name,
        scheduler.solver,
        sigmas if spacing is None else lambda steps: scheduler.plan(steps).sigmas,
        counts,
        claimed=entry.order if entry.paper else None,
        brownian=entry.noise == "brownian",
        rounding=rounding,
    )


def _draws(solver: Solver, sigmas: Sequence[float]) -> bool:
    x = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    return _steps(Gaussian(), x, sigmas, solver, lambda *_: torch.zeros_like(x))[-1].draws > 0


def _steps(
    world: World,
    start: Tensor | State,
    sigmas: Sequence[float],
    solver: Solver,
    noise: Noise | None = None,
) -> list[Step]:
    with torch.no_grad():
        return list(sample(world, start, sigmas, solver, noise))


def _flow_errors(solver: Solver, sigmas: Sequence[float], world: World) -> tuple[int, float, float]:
    """(NFE, error of the method, of the last interval), in float64."""
    x = starting_values(sigmas[0])
    steps = _steps(world, x, sigmas, solver)
    nfe = sum(step.nfe for step in steps)
    if sigmas[-1] > 0:
        return nfe, _apart(steps[-1].x_next, world.flow(x, sigmas[0], sigmas[-1])), 0.0
    before = world.flow(x, sigmas[0], sigmas[-2])
    state = steps[-2].state if len(steps) > 1 else State(x)
    method = _apart(state.x, before)
    exactly = State(before, len(steps) - 1, state.memory, state.draws)
    last = _steps(world, exactly, sigmas, solver)[-1].x_next
    return nfe, method, _apart(last, world.flow(x, sigmas[0], 0.0))


def _rounding(solver: Solver, sigmas: Sequence[float], world: World) -> float:
    """The same run in float32 against float64."""
    x = starting_values(sigmas[0])
    single, double = (_steps(world, each, sigmas, solver)[-1].x_next for each in (x.float(), x))
    return _apart(single.double(), double)


def starting_values(sigma: float) -> Tensor:
    """64 values across what noise of this sigma makes, [1,1,8,8] in float64."""
    return torch.linspace(-1.2, 1.2, 64, dtype=torch.float64).reshape(1, 1, 8, 8) * sigma


def _apart(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


@dataclass(frozen=True)
class Moments:
    """The law of x at a run's end in a Gaussian world, for a start with the world's own law."""

    mean: float
    variance: float
    draws: int
    nfe: int


def moments(
    solver: Solver, sigmas: Sequence[float], world: Gaussian, brownian: bool = False
) -> Moments:
    """Mean and variance at the end of a stochastic run, exactly: nothing is drawn at random.

    There x at the end is m + a (start - mean) + sum_k c_k z_k with unit noises z_k. A run from the
    mean that hears silence finds m, its mean at the end; one batch finds every other coefficient:
    row 0 starts one off the mean and hears silence, row k + 1 starts at the mean and hears 1 in
    draw k alone. The variance is a^2 (std^2 + sigma^2) + c^T K c, where K is the covariance of the
    draws: 1 for each, and for a Brownian path the overlap of two intervals over the root of their
    lengths, negative where one goes up in sigma and the other down.
    """
    spans: list[tuple[float, float]] = []

    def listen(draw: int, sigma: float, sigma_next: float) -> Tensor:
        spans.append((sigma, sigma_next))
        return torch.zeros(1, 1, 1, 1, dtype=torch.float64)

    mean = world.mean
    still = torch.zeros(1, 1, 1, 1, dtype=torch.float64) + mean
    silent = _steps(world, still, sigmas, solver, listen)
    rows = torch.eye(len(spans) + 1, dtype=torch.float64).reshape(-1, len(spans) + 1, 1, 1, 1)
    end = _steps(world, mean + rows[:, 0], sigmas, solver, lambda draw, *_: rows[:, draw + 1])
    response = (end[-1].x_next - silent[-1].x_next).flatten()
    start, drawn = response[0].item(), response[1:]
    covariance = torch.eye(len(spans), dtype=torch.float64)
    if brownian:
        covariance = covariance.new_tensor([[_overlap(a, b) for b in spans] for a in spans])
    variance = start**2 * (world.std**2 + sigmas[0] ** 2) + (drawn @ covariance @ drawn).item()
    ends_at = silent[-1].x_next.item()
    return Moments(ends_at, variance, len(spans), sum(step.nfe for step in silent))


def _overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The correlation of a Brownian path's increments over two intervals of sigma."""
    shared = max(0.0, min(max(a), max(b)) - max(min(a), min(b)))
    lengths = (a[0] - a[1]) * (b[0] - b[1])
    return math.copysign(shared / math.sqrt(abs(lengths)), lengths)


def _variance_error(
    solver: Solver, sigmas: Sequence[float], world: Gaussian, brownian: bool
) -> tuple[float, int]:
    """(error, NFE): of the variance at the last sigma above 0."""
    found = moments(solver, sigmas if sigmas[-1] > 0 else sigmas[:-1], world, brownian)
    exact = world.std**2 + (sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]) ** 2
    return abs(found.variance - exact), found.nfe
