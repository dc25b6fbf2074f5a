"""log p by the probability flow, where it is known."""

import math
from collections.abc import Sequence

import pytest
import torch

from sdcore.errors import InputError
from sdcore.inversion import rising
from sdcore.lab import Gaussian, Mixture, denoiser
from sdcore.likelihood import Hutchinson, exact_divergence, log_likelihood
from sdcore.process import Process, RectifiedFlow
from sdcore.sampling import Denoise, Solver
from sdcore.schedulers import resolve
from sdcore.schedulers.flow_schedule import to_sigma
from sdcore.schedulers.solvers.heun import heun

X = torch.linspace(-1.5, 1.8, 12, dtype=torch.float64).reshape(2, 1, 2, 3)


def up(steps: int) -> tuple[float, ...]:
    return rising(resolve("euler", "karras").plan(steps).sigmas[:-1])


def gaussian_log_density(x: torch.Tensor, mean: float, variance: float) -> torch.Tensor:
    each = -0.5 * ((x - mean).square() / variance + math.log(2 * math.pi * variance))
    return each.flatten(1).sum(1)


@pytest.mark.parametrize(("solver", "order"), [("heun", 2), ("dpmpp_2m", 2), ("rk4", 4)])
def test_a_gaussian_world_to_the_order_of_the_solver(solver: str, order: int) -> None:
    world, errors = Gaussian(0.0, 0.7), []
    for steps in (20, 40, 80):
        sigmas = up(steps)
        wanted = gaussian_log_density(X, 0.0, 0.7**2 + sigmas[0] ** 2)
        found = log_likelihood(world, X, sigmas, resolve(solver).solver, variance=0.7**2)
        errors.append((found.log_density - wanted).abs().max().item())
        assert found.bits == pytest.approx(-found.log_density / 6 / math.log(2))
    assert errors[-1] < 0.05
    assert errors[1] / errors[2] > 2**order * 0.85


FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}


@pytest.mark.parametrize(("solver", "order"), [("heun", 2), ("rk4", 4)])
def test_along_the_flow_to_the_order_of_the_solver(solver: str, order: int) -> None:
    """Over a window of s, and from the picture to pure noise; asked through a network of v."""
    world, variance = Gaussian(0.3, 0.7), 0.7**2
    scheduler, errors = resolve(solver, config=FLOW), []
    for steps in (10, 20):
        sigmas = [to_sigma(0.05 + (0.95 - 0.05) * i / steps) for i in range(steps + 1)]
        errors.append(_error(world, variance, sigmas, scheduler.solver, RectifiedFlow()))
    assert errors[0] / errors[1] > 2**order * 0.75
    plan = scheduler.plan(40)
    whole = rising([sigma for sigma in plan.sigmas if sigma > 0])
    assert _error(world, variance, whole, scheduler.solver, RectifiedFlow(plan)) < 0.02


def _error(
    world: Gaussian, variance: float, sigmas: Sequence[float], solver: Solver, process: Process
) -> float:
    denoise = denoiser(world, process=process, batch=2)
    found = log_likelihood(denoise, X, sigmas, solver, mean=0.3, variance=variance, process=process)
    assert (found.noise - world.flow(X, sigmas[0], sigmas[-1])).abs().max() < 0.1 * sigmas[-1]
    wanted = gaussian_log_density(X, 0.3, variance + sigmas[0] ** 2)
    return (found.log_density - wanted).abs().max().item()


def test_both_paths_say_the_same_of_one_world() -> None:
    """log p of x does not hang on the path by which it is found."""
    world, sigmas = Mixture(), [0.05 * (40 / 0.05) ** (i / 24) for i in range(25)]
    variance = 0.7
    by_sigma, by_s = (
        log_likelihood(
            denoiser(world, process=process, batch=2), X, sigmas,
            resolve("verner6", config=config).solver, variance=variance, process=process,
        ).log_density
        for process, config in ((None, None), (RectifiedFlow(), FLOW))
    )  # fmt: skip
    assert (by_sigma - by_s).abs().max() < 1e-5


def test_a_mixture() -> None:
    world = Mixture()
    mean = sum(m * w for m, w in zip(world.means, world.weights, strict=True))
    moments = zip(world.means, world.stds, world.weights, strict=True)
    variance = sum(w * (m**2 + s**2) for m, s, w in moments) - mean**2
    sigmas = up(40)
    solver = resolve("rk4").solver
    found = log_likelihood(world, X, sigmas, solver, mean=mean, variance=variance)
    wanted = world.log_density(X, sigmas[0]).flatten(1).sum(1)
    assert (found.log_density - wanted).abs().max() < 0.01
    exact = world.flow(X, sigmas[0], sigmas[-1])
    assert (found.noise - exact).abs().max() < 0.02


def test_in_float32_and_with_steps_of_its_own() -> None:
    """Any deterministic solver carries it, in the dtype of the picture."""
    world, sigmas = Gaussian(0.0, 0.7), (0.05, 0.5, 30.0)
    solver = resolve("tsit5:rtol=0.001,atol=0.001,variable=log_sigma").solver
    found = log_likelihood(world, X.float(), sigmas, solver, variance=0.7**2)
    wanted = gaussian_log_density(X, 0.0, 0.7**2 + 0.05**2)
    assert found.log_density.dtype == torch.float32
    assert (found.log_density - wanted).abs().max() < 0.05


def test_random_signs_are_exact_where_values_do_not_mix() -> None:
    """There the derivative of eps is a diagonal, and v . D v = trace D for every v of signs."""
    for world in (Gaussian(0.3, 0.7), Mixture()):
        exact = exact_divergence(world, X, 0.8)
        assert (Hutchinson(1)(world, X, 0.8) - exact).abs().max() < 1e-12


def test_random_signs_near_the_trace_where_values_mix() -> None:
    turn, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=GENERATOR))
    inner = Mixture()

    def mixed(x: torch.Tensor, sigma: float) -> object:
        from sdcore.sampling import Prediction

        turned = inner((x.flatten(1) @ turn).reshape(x.shape), sigma)
        back = [(t.flatten(1) @ turn.T).reshape(x.shape) for t in (turned.x0, turned.eps)]
        return Prediction(*back)

    denoise: Denoise = mixed  # type: ignore[assignment]
    exact = exact_divergence(denoise, X, 0.5)
    errors = [(Hutchinson(n, seed=1)(denoise, X, 0.5) - exact).abs().max() for n in (1, 4096)]
    assert errors[1] < 0.1 < errors[0]


GENERATOR = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("sigmas", [(0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (1.0,), ()])
def test_a_schedule_that_does_not_rise(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="rise from above 0"):
        log_likelihood(Gaussian(), X, sigmas, heun)
