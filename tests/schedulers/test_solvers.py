"""Solvers against theory: worlds with a known answer, in float64 where order is measured."""

import itertools
import math

import pytest
import torch

from sdcore.sampling import State, sample
from sdcore.schedulers import TABLE, resolve
from sdcore.schedulers.dpmpp import dpmpp_2m
from sdcore.schedulers.euler import ancestral, euler
from sdcore.schedulers.heun import heun
from sdcore.schedulers.plms import plms
from tests.toys import SD, constant_eps, gaussian, gaussian_flow, our_latents

DETERMINISTIC = [entry.name for entry in TABLE if not entry.stochastic]


def last(steps):
    return list(steps)[-1].x_next


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "karras"])
def test_constant_eps_is_exact(name, spacing):
    """Every consistent solver must end at x + (sigma_end - sigma_start) eps."""
    generator = torch.Generator().manual_seed(3)
    eps = torch.randn(1, 2, 3, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(1, 2, 3, 3, generator=generator, dtype=torch.float64)
    scheduler = resolve(name, spacing=spacing)
    for steps in (*range(1, 13), 31, 60) if spacing == "karras" else (1, 2, 3, 7, 20):
        sigmas = scheduler.plan(steps).sigmas
        for start in {0, steps // 3, steps - 1}:
            exact = x + (sigmas[-1] - sigmas[start]) * eps
            found = last(sample(constant_eps(eps), State(x, start), sigmas, scheduler.solver))
            assert (found - exact).abs().max() <= 1e-12, (steps, start)


def measured_order(solver, counts=(40, 80, 160)):
    """The slope of the error on even steps of log sigma, 10 to 0.1, in a Gaussian world."""
    x = torch.linspace(-12, 12, 64, dtype=torch.float64).reshape(1, 1, 8, 8)
    errors = []
    for count in counts:
        sigmas = [10 * 100 ** (-i / count) for i in range(count + 1)]
        exact = gaussian_flow(x, sigmas[0], sigmas[-1])
        errors.append((last(sample(gaussian, x, sigmas, solver)) - exact).abs().max().item())
    return math.log2(errors[-2] / errors[-1])


@pytest.mark.parametrize(
    ("solver", "order"),
    [(euler, 1), (heun, 2), (dpmpp_2m, 2), (plms, 2)],
    ids=["euler", "heun", "dpmpp_2m", "plms"],
)
def test_order_of_convergence(solver, order):
    assert measured_order(solver) >= order - 0.1


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_the_table_claims_the_measured_nfe(entry):
    """Between the start, three steps in PNDM with Runge-Kutta, and the end, two in DPM fast."""
    x = torch.ones(1, 1, 2, 2)
    sigmas = [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5]
    solver = resolve(entry.name).solver
    noise = lambda *_: torch.zeros_like(x)  # noqa: E731
    steps = list(sample(gaussian, x, sigmas, solver, noise))
    nfe = [step.nfe for step in steps]
    first = 3 if entry.name == "pndm_prk" else 1
    last = 5 if entry.name == "dpm_fast" else 6
    assert nfe[first:last] == [entry.nfe] * (last - first)


def test_first_orders_are_one():
    """DPM++ 2M without memory, and PLMS in a single step, are Euler."""
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = last(sample(gaussian, x, [5.0, 2.0], euler))
    for solver in (dpmpp_2m, plms):
        assert (last(sample(gaussian, x, [5.0, 2.0], solver)) - first).abs().max() <= 1e-14


def test_heun_and_plms_into_zero_take_the_euler_step():
    x = torch.ones(1, 1, 2, 2)
    for solver in (heun, plms, dpmpp_2m):
        (step,) = sample(gaussian, x, [1.0, 0.0], solver)
        assert step.nfe == 1
        assert torch.equal(step.x_next, step.prediction.x0)


def test_ddim_is_its_paper_in_the_other_form():
    """Song et al. 2021, eq. 12 with eq. 16's sigma_t, in variance-preserving form and float64."""
    scheduler = resolve("ddim")
    plan = scheduler.plan(10)
    alphas = [1 / (1 + sigma**2) for sigma in plan.sigmas]
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(1, 2, 4, 4, generator=generator, dtype=torch.float64)
    noises = torch.randn(10, 1, 2, 4, 4, generator=generator, dtype=torch.float64)
    for eta in (0.0, 0.5, 1.0):
        x, ours = start, start / alphas[0] ** 0.5
        for i, (a, b) in enumerate(itertools.pairwise(alphas)):
            p = gaussian(x / a**0.5, plan.sigmas[i])
            std = eta * math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)
            x = b**0.5 * p.x0 + math.sqrt(1 - b - std**2) * p.eps + std * noises[i]
        solver = resolve("ddim", eta=eta).solver
        ours = last(sample(gaussian, ours, plan.sigmas, solver, lambda k, *_: noises[k]))
        assert (ours * plan.end_scale - x).abs().max() <= 1e-13


def test_ddim_with_eta_one_is_euler_ancestral():
    for steps in (1, 7, 20):
        ddim = our_latents(resolve("ddim", spacing="karras", eta=1.0), steps)
        spacing = resolve("ddim", spacing="karras").spacing
        assert torch.equal(ddim, our_latents(resolve("euler_a", spacing=spacing), steps))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0, 1.7, 50.0])
def test_ancestral_noise_adds_up(eta):
    for sigma, sigma_next in ((14.6, 10.0), (1.0, 0.999), (0.5, 0.0), (0.3, 0.3), (1.0, 2.0)):
        down, up = ancestral(sigma, sigma_next, eta)
        assert math.hypot(down, up) == pytest.approx(sigma_next, abs=1e-14)
        assert 0 <= down <= sigma_next
        if eta == 0 or sigma_next == 0 or sigma_next >= sigma:
            assert up == 0


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_marginals_of_the_stochastic_solvers(eta):
    """In a Gaussian world x at the end has the world's mean and variance."""
    generator = torch.Generator().manual_seed(2)
    sigmas = [20 * 0.001 ** (i / 300) for i in range(300)] + [0.0]
    x = 0.3 + math.hypot(20, 0.5) * torch.randn(16, 4, 32, 32, generator=generator)
    noise = lambda draw, *_: torch.randn(x.shape, generator=generator)  # noqa: E731
    solver = resolve("euler", eta=eta).solver
    found = last(sample(gaussian, x, sigmas, solver, noise))
    assert found.mean().item() == pytest.approx(0.3, abs=0.01)
    assert found.std().item() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("name", [entry.name for entry in TABLE])
def test_one_truth_in_three_parameterisations(name):
    """The same picture whether the network says eps, v or x0."""

    def network(form):
        def say(x_in, t, context, added=None):
            scale = math.hypot(1, sigma_of(t))
            p = gaussian(x_in * scale, sigma_of(t))
            if form == "v_prediction":
                return (p.eps - sigma_of(t) * p.x0) / scale
            return p.eps if form == "epsilon" else p.x0

        return say

    ends = []
    for form in ("epsilon", "v_prediction", "sample"):
        scheduler = resolve(name, spacing="trailing", config={**SD, "prediction_type": form})
        sigma_of = scheduler.noise_schedule.sigma
        ends.append(our_latents(scheduler, 20, model=network(form)))
    assert (ends[0] - ends[1]).abs().max() <= 5e-5
    assert (ends[0] - ends[2]).abs().max() <= 5e-5


@pytest.mark.parametrize("solver", [euler, heun])
def test_inversion_runs_the_same_loop(solver):
    """Up and down again on 200 even steps of log sigma comes back to the start."""
    sigmas = [0.05 * 200 ** (i / 200) for i in range(201)]
    x = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    up = last(sample(gaussian, x, sigmas, solver))
    assert (up - gaussian_flow(x, sigmas[0], sigmas[-1])).abs().max() <= 0.3
    back = last(sample(gaussian, up, sigmas[::-1], solver))
    assert (back - x).abs().max() <= (2e-2 if solver is euler else 2e-4)
