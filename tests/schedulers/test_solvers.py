"""Solvers against their papers, and where two are one. What all must keep: test_laws.py."""

import itertools
import math

import pytest
import torch

from scripts.trajectories import our_latents
from sdcore.lab import Gaussian
from sdcore.process import ancestral
from sdcore.sampling import sample
from sdcore.schedulers import TABLE, resolve
from sdcore.schedulers.solvers.dpmpp import dpmpp_2m
from sdcore.schedulers.solvers.euler import euler
from sdcore.schedulers.solvers.heun import heun
from sdcore.schedulers.solvers.plms import plms

gaussian = Gaussian(0.3, 0.5)


def last(steps):
    return list(steps)[-1].x_next


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_the_table_claims_the_measured_nfe(entry):
    """Between start-up and ending."""
    x = torch.ones(1, 1, 2, 2)
    sigmas = [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5]
    solver = resolve(entry.name).solver
    noise = lambda *_: torch.zeros_like(x)  # noqa: E731
    steps = list(sample(gaussian, x, sigmas, solver, noise))
    nfe = [step.nfe for step in steps]
    between = nfe[entry.start_up : len(nfe) - entry.ending]
    assert between == [entry.nfe] * len(between)


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


@pytest.mark.parametrize("solver", [euler, heun])
def test_inversion_runs_the_same_loop(solver):
    """Up and down again on 200 even steps of log sigma comes back to the start."""
    sigmas = [0.05 * 200 ** (i / 200) for i in range(201)]
    x = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    up = last(sample(gaussian, x, sigmas, solver))
    assert (up - gaussian.flow(x, sigmas[0], sigmas[-1])).abs().max() <= 0.3
    back = last(sample(gaussian, up, sigmas[::-1], solver))
    assert (back - x).abs().max() <= (2e-2 if solver is euler else 2e-4)
