"""log p by the probability flow, where it is known."""

import math

import pytest
import torch

from sdcore.errors import InputError
from sdcore.inversion import rising
from sdcore.lab import Gaussian, Mixture
from sdcore.likelihood import Hutchinson, exact_divergence, log_likelihood
from sdcore.sampling import Denoise
from sdcore.schedulers import resolve
from sdcore.schedulers.solvers.heun import heun

X = torch.linspace(-1.5, 1.8, 12, dtype=torch.float64).reshape(2, 1, 2, 3)


def up(steps: int) -> tuple[float, ...]:
    return rising(resolve("euler", "karras").plan(steps).sigmas[:-1])


def gaussian_log_density(x: torch.Tensor, mean: float, variance: float) -> torch.Tensor:
    each = -0.5 * ((x - mean).square() / variance + math.log(2 * math.pi * variance))
    return each.flatten(1).sum(1)


def test_a_gaussian_world_to_second_order() -> None:
    world, errors = Gaussian(0.0, 0.7), []
    for steps in (20, 40, 80):
        sigmas = up(steps)
        wanted = gaussian_log_density(X, 0.0, 0.7**2 + sigmas[0] ** 2)
        seen = log_likelihood(world, X, sigmas, heun, variance=0.7**2)
        errors.append((seen.log_density - wanted).abs().max().item())
        assert seen.bits == pytest.approx(-seen.log_density / 6 / math.log(2))
    assert errors[-1] < 0.02
    assert errors[0] / errors[2] > 16 * 0.9


def test_a_mixture() -> None:
    world = Mixture()
    mean = sum(m * w for m, w in zip(world.means, world.weights, strict=True))
    moments = zip(world.means, world.stds, world.weights, strict=True)
    variance = sum(w * (m**2 + s**2) for m, s, w in moments) - mean**2
    sigmas = up(160)
    seen = log_likelihood(world, X, sigmas, heun, mean=mean, variance=variance)
    wanted = world.log_density(X, sigmas[0]).flatten(1).sum(1)
    assert (seen.log_density - wanted).abs().max() < 0.01
    exact = world.flow(X, sigmas[0], sigmas[-1])
    assert (seen.noise - exact).abs().max() < 0.02


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


@pytest.mark.parametrize("sigmas", [(0.0, 1.0), (2.0, 1.0), (1.0, 1.0)])
def test_a_schedule_that_does_not_rise(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="rise from above 0"):
        log_likelihood(Gaussian(), X, sigmas, heun)
