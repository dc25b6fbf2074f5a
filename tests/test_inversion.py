"""Pictures back to noise, in worlds where the way there is known."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.inversion import edit_friendly, fixed_point, rising, turned
from sdcore.lab import Gaussian, Mixture
from sdcore.noise import SeededNoise
from sdcore.sampling import Solver, sample
from sdcore.schedulers import resolve
from sdcore.schedulers.solvers.belm import belm
from sdcore.schedulers.solvers.ddpm import ddpm
from sdcore.schedulers.solvers.dpmpp import dpmpp_2m
from sdcore.schedulers.solvers.euler import euler
from sdcore.schedulers.solvers.heun import heun
from sdcore.schedulers.solvers.midpoint import dpm2

WORLD = Mixture()
X0 = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(1, 1, 4, 4)


def sigmas(steps: int, low: float = 0.03) -> tuple[float, ...]:
    plan = resolve("euler", "karras").plan(steps).sigmas
    return (*plan[:-1], low / 2)


def last(x: Tensor, schedule: tuple[float, ...], solver: Solver) -> Tensor:
    *_, step = sample(WORLD, x, schedule, solver)
    return step.x_next


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2), (dpm2, 2)])
def test_plain_inversion_nears_the_flow_with_the_solvers_order(solver: Solver, order: int) -> None:
    errors = []
    for steps in (40, 80):
        up = rising(sigmas(steps))
        exact = WORLD.flow(X0, up[0], up[-1])
        errors.append((last(X0, up, solver) - exact).abs().max().item())
    assert errors[0] / errors[1] > 2**order * 0.8


@pytest.mark.parametrize("solver", [euler, heun, dpm2])
def test_a_fixed_point_is_what_the_solver_undoes(solver: Solver) -> None:
    down = sigmas(20)
    residuals: list[float] = []
    heard: Callable[[float, Tensor], None] = lambda sigma, r: residuals.append(r.max().item())  # noqa: E731
    errors = []
    for iterations in (0, 5, 40):
        top = last(X0, rising(down), fixed_point(solver, iterations, heard))
        errors.append((last(top, down, solver) - X0).abs().max().item())
    assert errors[2] < 1e-9 < errors[1] < errors[0]
    assert len(residuals) == 40
    assert max(residuals[20:]) < 1e-9


def test_a_fixed_point_of_no_iterations_is_plain_inversion() -> None:
    up = rising(sigmas(10))
    assert torch.equal(last(X0, up, fixed_point(euler, 0)), last(X0, up, euler))


@pytest.mark.parametrize(
    ("solver", "why"), [(dpmpp_2m, "without memory"), (partial(ddpm, eta=1.0), "without noise")]
)
def test_a_fixed_point_of_what_remembers_or_draws(solver: Solver, why: str) -> None:
    with pytest.raises(InputError, match=why):
        last(X0, rising(sigmas(5)), fixed_point(solver))


@pytest.mark.parametrize("steps", [3, 10, 50])
def test_belm_undoes_itself(steps: int) -> None:
    """To rounding, whatever the number of steps; plain inversion does not."""
    down = sigmas(steps)
    *_, top = sample(WORLD, X0, rising(down), belm)
    back = list(sample(WORLD, turned(top), down, belm))
    assert [step.index for step in back] == list(range(1, steps))
    assert (back[-1].x_next - X0).abs().max() < 1e-9
    assert (last(last(X0, rising(down), euler), down, euler) - X0).abs().max() > 1e-3


def test_belm_begins_anew_under_another_guidance() -> None:
    down = sigmas(10)
    other = lambda x, sigma: replace(WORLD(x, sigma), origin="other")  # noqa: E731
    steps = list(sample(WORLD, X0 * down[0], down, belm))
    state = steps[4].state
    after = next(sample(other, state, down, belm))
    plain = next(sample(other, replace(state, memory=()), down, belm))
    assert torch.equal(after.x_next, plain.x_next)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_edit_friendly_noise_draws_the_picture_again(eta: float) -> None:
    down = resolve("euler", "karras").plan(12).sigmas
    x0 = X0.float()
    fresh = SeededNoise((3,), (1, 4, 4), spent=0)
    solver: Solver = partial(euler, eta=eta)
    state, noise = edit_friendly(WORLD, x0, down, solver, fresh)
    steps = list(sample(WORLD, state, down, solver, noise))
    for step in steps[:-1]:  # each level is the picture with noise of its own
        level = x0 + step.sigma_next * fresh(step.index + 1, 0.0, 0.0)
        assert (step.x_next - level).abs().max() < 2e-5 * step.sigma
    wanted = WORLD(steps[-1].x, down[-2]).x0
    assert (steps[-1].x_next - wanted).abs().max() < 1e-6
    assert steps[-1].draws == 11


def test_edit_friendly_noise_from_the_middle() -> None:
    down = resolve("euler", "karras").plan(12).sigmas
    fresh = SeededNoise((3,), (1, 4, 4), spent=0)
    solver = resolve("ddpm").solver
    state, noise = edit_friendly(WORLD, X0.float(), down, solver, fresh, start=7)
    assert (state.index, state.sigma, len(noise.draws)) == (7, down[7], 4)
    assert len(list(sample(WORLD, state, down, solver, noise))) == 5
    with pytest.raises(InputError, match="4 draws were found"):
        noise(4, 1.0, 0.5)
    with pytest.raises(InputError, match=r"noise of step 1 was found from sigma .* invert again"):
        list(sample(WORLD, state.x, (down[7], *down[9:]), solver, noise))


@pytest.mark.parametrize("solver", [euler, dpmpp_2m, heun, resolve("dpm2_a").solver])
def test_edit_friendly_noise_needs_one_draw_a_step(solver: Solver) -> None:
    fresh = SeededNoise((3,), (1, 4, 4), spent=0)
    with pytest.raises(InputError, match="euler_a"):
        edit_friendly(Gaussian(), X0.float(), sigmas(5), solver, fresh)
