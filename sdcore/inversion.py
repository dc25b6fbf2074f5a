"""From a picture back to noise: the loop run upwards, and noise that a stochastic solver would
have needed.

    up = rising(run.sigmas)
    *_, top = sample(run.denoise, latents, up, euler)                     # DDIM inversion
    *_, top = sample(run.denoise, latents, up, fixed_point(euler, 5))     # what Euler undoes
    *_, top = sample(run.denoise, latents, up, belm)                      # undone exactly, by
    sample(run.denoise, turned(top), run.sigmas, belm)
    state, noise = edit_friendly(run.denoise, latents, run.sigmas, euler_a, fresh)

Each is told at its function. `sdcore.sampling.sample` runs them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from sdcore.errors import InputError, unknown
from sdcore.sampling import (
    Denoise,
    Draw,
    Interval,
    Memo,
    Memory,
    Noise,
    Prediction,
    Solver,
    State,
    Step,
    sample,
)
from sdcore.state_file import FoundDraw


def rising(sigmas: Sequence[float]) -> tuple[float, ...]:
    """The schedule upwards, from where the picture is to the noise."""
    return tuple(reversed(sigmas))


def fixed_point(
    solver: Solver,
    iterations: int = 5,
    heard: Callable[[float, Tensor], None] | None = None,
) -> Solver:
    """The inverse of a one-step solver, as a solver on the rising schedule.

    Finds the x_high that `solver` carries down to x (Pan et al. 2023, arXiv 2309.04907, AIDI; for
    Euler it is their eq. 6): x_high <- x_high + (x - solver(x_high)), which starts from the
    solver's own step upwards and shrinks the residual where one step changes eps little.

    Args:
        solver: deterministic and without memory: ddim, euler, heun, dpm2 ...
        iterations: at least 0; each asks the model as often as a step of the solver does.
        heard: told of each step the sigma it ends at and the residual max|x - solver(x_high)| of
            every picture [B] before the last correction.

    Raises InputError, when it runs, for a solver that remembers or draws.
    """

    def solve(
        denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
    ) -> tuple[Tensor, Prediction, Memory]:
        def down(x_high: Tensor) -> tuple[Tensor, Prediction]:
            back, prediction, kept = solver(denoise, x_high, _turned(interval), (), _no_noise)
            if kept != ():
                raise InputError("a fixed point needs a solver without memory, e.g. euler or heun")
            return back, prediction

        x_high, prediction, _ = solver(denoise, x, interval, (), _no_noise)
        for _ in range(iterations):
            back, prediction = down(x_high)
            residual = x - back
            x_high = x_high + residual
        if heard is not None and iterations:
            heard(interval.sigma_next, residual.abs().flatten(1).amax(1))
        return x_high, prediction, ()

    return solve


def _turned(interval: Interval) -> Interval:
    """The same interval the other way."""
    return replace(
        interval,
        sigma=interval.sigma_next,
        sigma_next=interval.sigma,
        index=interval.count - 1 - interval.index,
        sigmas=rising(interval.sigmas),
    )


def _no_noise(sigma: float, sigma_next: float) -> Tensor:
    raise InputError("a fixed point needs a solver without noise, e.g. euler or heun")


@dataclass(frozen=True)
class Recorded:
    """A Noise that gives back draws that were found, each in the step it was found for.

    Raises InputError where another step asks: there the draw would be noise like any other.
    """

    draws: tuple[FoundDraw, ...]

    def __call__(self, draw: int, sigma: float, sigma_next: float) -> Tensor:
        """The draw that was found for this step, [B,C,H,W]."""
        keep = "keep scheduler, spacing and steps, or invert again with others"
        if draw >= len(self.draws):
            raise InputError(f"{len(self.draws)} draws were found, and one more is needed: {keep}")
        found = self.draws[draw]
        if (sigma, sigma_next) != found[:2]:
            raise InputError(
                f"the noise of step {draw + 1} was found from sigma {found.sigma:.4g} to "
                f"{found.sigma_next:.4g}, and is asked for from {sigma:.4g} to {sigma_next:.4g}: "
                f"{keep}"
            )
        return found.value

    def to(self, device: torch.device) -> Recorded:
        """The same draws on a device."""
        return Recorded(tuple(each._replace(value=each.value.to(device)) for each in self.draws))


def edit_friendly(
    denoise: Denoise,
    x0: Tensor,
    sigmas: Sequence[float],
    solver: Solver,
    noise: Noise,
    start: int = 0,
) -> tuple[State, Recorded]:
    """Noise with which a stochastic solver draws just this picture again.

    Huberman-Spiegelglas et al. 2024 (arXiv 2304.06140, algorithm 1): the x of every level is the
    picture with noise of its own, x_i = x0 + sigma_i * eps_i, and the draw of step i is what leads
    from x_i to x_{i+1}: z = (x_{i+1} - mean(x_i)) / std. With another prompt the same draws keep
    the picture's layout.

    Args:
        x0: the picture's latents [B,C,H,W]; sigmas: falling, the last may be 0.
        solver: one draw a step and no memory: euler_a, ddim with eta > 0, ddpm.
        noise: where the eps_i come from; its draws 0, 1 ... are used.
        start: the index of the step to begin with.

    Returns what `sample(denoise, state, sigmas, solver, recorded)` needs. The last step draws no
    noise, so the picture comes back up to that step's own error.
    Raises InputError for a solver of another kind.
    """
    levels = [
        x0 + sigma * noise(n, sigma, sigma) if sigma else x0
        for n, sigma in enumerate(sigmas[start:])
    ]
    count, found = len(sigmas) - 1, []
    for index, (x, x_next) in enumerate(pairwise(levels), start=start):
        interval = Interval(sigmas[index], sigmas[index + 1], index, count, sigmas)
        mean, std, asked = _mean_and_std(denoise, x, interval, solver)
        if std > 0:
            found.append(FoundDraw(*asked, (x_next - mean) / std))
        elif interval.sigma_next > 0:
            raise InputError("edit-friendly noise needs a solver that draws in each step: euler_a")
    return State(levels[0], start, sigma=sigmas[start]), Recorded(tuple(found))


def _mean_and_std(
    denoise: Denoise, x: Tensor, interval: Interval, solver: Solver
) -> tuple[Tensor, float, tuple[float, float]]:
    """Of where the solver goes from x: it is mean + std * noise, with noise between two levels.

    std is 0 where it draws none.
    """
    asked, drawn = [], []
    levels = interval.sigma, interval.sigma_next

    def ask(x: Tensor, sigma: float) -> Prediction:
        asked.append(denoise(x, sigma) if not asked else asked[0])
        return asked[0]

    def draw(sigma: float, sigma_next: float) -> Tensor:
        nonlocal levels
        levels = sigma, sigma_next
        drawn.append(len(asked) - 1)  # all 0 in the first pass, all 1 in the second
        return torch.full_like(x, float(drawn[-1]))

    mean, _, memory = solver(ask, x, interval, (), draw)
    once = len(asked) == 1 and len(drawn) <= 1
    lifted, _, _ = solver(ask, x, interval, (), draw)
    if memory != () or not once:
        raise InputError("edit-friendly noise needs a solver that asks and draws once: euler_a")
    return mean, (lifted - mean).double().mean().item(), levels


def turned(step: Step) -> State:
    """Where to begin on the way down again, after the last step of a way up by a rule that can be
    run backwards (`belm`): one step below the top, and what was at the top is remembered.

    `sample(denoise, turned(top), sigmas, belm)`, with the same sigmas falling, undoes every step.
    """
    memo = Memo("x", step.sigma_next, step.x_next, step.prediction.origin)
    return State(step.x, 1, (memo,), 0, step.sigma)


@dataclass(frozen=True)
class Inverted:
    """Where a picture came to, and what draws it again from there."""

    state: State  # to be gone on with over the falling sigmas
    residual: float | None = None  # of a fixed point: the largest of the last corrections
    noise: Recorded | None = None  # of edit-friendly inversion: in place of a seed's


def inverted(
    denoise: Denoise,
    x0: Tensor,
    sigmas: Sequence[float],
    solver: Solver,
    method: str,
    noise: Noise,
    iterations: int = 5,
) -> Inverted:
    """A picture's latents [B,C,H,W] carried up over the sigmas, which fall.

    method: "plain", "fixed-point", "exact" (solver: belm) or "edit-friendly" (solver: euler_a, with
    its levels' noise from `noise`). Raises InputError for another one, and for solvers that cannot.
    """
    if method == "edit-friendly":
        state, found = edit_friendly(denoise, x0, sigmas, solver, noise)
        return Inverted(state, noise=found)
    residuals: list[float] = []
    heard = lambda sigma, residual: residuals.append(residual.max().item())  # noqa: E731
    if method == "fixed-point":
        upwards = fixed_point(solver, iterations, heard)
    elif method in ("plain", "exact"):
        upwards = solver
    else:
        raise unknown("method", method, ("plain", "fixed-point", "exact", "edit-friendly"))
    *_, top = sample(denoise, x0, rising(sigmas), upwards)
    state = turned(top) if method == "exact" else State(top.x_next, 0, sigma=sigmas[0])
    return Inverted(state, max(residuals, default=None))
