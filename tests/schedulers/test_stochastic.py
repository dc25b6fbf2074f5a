"""Stochastic solvers against theory: their law in a Gaussian world, and where they are one."""

import math
from functools import partial

import pytest
import torch

from sdcore.brownian import BrownianNoise
from sdcore.errors import InputError
from sdcore.lab import Gaussian, moments
from sdcore.noise import SeededNoise
from sdcore.process import ancestral
from sdcore.sampling import Memo, Prediction, sample
from sdcore.schedulers import resolve
from sdcore.schedulers.noise_schedule import STABLE_DIFFUSION
from sdcore.schedulers.solvers.churn import churn
from sdcore.schedulers.solvers.consistency import lcm, tcd
from sdcore.schedulers.solvers.ddpm import ddpm
from sdcore.schedulers.solvers.dpmpp import dpmpp_2m, res_multistep
from sdcore.schedulers.solvers.dpmpp_sde import (
    dpmpp_2m_sde,
    dpmpp_3m_sde,
    dpmpp_3m_sde_taylor,
    multistep,
)
from sdcore.schedulers.solvers.er_sde import POINTS, er_sde, integral, noise_scale
from sdcore.schedulers.solvers.euler import euler
from sdcore.schedulers.solvers.heun import heun
from sdcore.schedulers.solvers.integrals import exact, exponential_step
from sdcore.schedulers.solvers.midpoint import dpm2, dpmpp_2s, dpmpp_sde
from sdcore.schedulers.solvers.sa_solver import sa_solver

MEAN, STD = 0.3, 0.5
WORLD = Gaussian(MEAN, STD)
EDM = {"eta": 1.0, "s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 50.0}


def even(count, high=20.0, low=0.005):
    """Even steps of log sigma."""
    return [high * (low / high) ** (i / count) for i in range(count + 1)]


def excess(solver, count, brownian=False):
    """How much larger the final variance is than the world's, as a share of it."""
    sigmas = even(count)
    found = moments(solver, sigmas, WORLD, brownian)
    assert found.mean == pytest.approx(MEAN, abs=1e-12)
    return found.variance / (STD**2 + sigmas[-1] ** 2) - 1


# (solver, order in which the variance's error falls, its size at 160 steps)
LAWS = {
    "euler_a": (partial(euler, eta=1.0), 1, 5.1e-2),
    "ddpm": (partial(ddpm, eta=1.0), 1, 5.1e-2),
    "ddpm fixed_large": (partial(ddpm, eta=1.0, variance_type="fixed_large"), 1, 2.4e-2),
    "dpm2_a": (partial(dpm2, eta=1.0), 2, 1.5e-3),
    "dpmpp_2s_a": (partial(dpmpp_2s, eta=1.0), 2, 1.4e-3),
    "dpmpp_2m_sde": (partial(dpmpp_2m_sde, eta=1.0), 2, 9e-4),
    "dpmpp_2m_sde eta 0.5": (partial(dpmpp_2m_sde, eta=0.5), 2, 9e-4),
    "dpmpp_2m_sde_heun": (partial(dpmpp_2m_sde, eta=1.0, solver_type="heun"), 2, 1.9e-3),
    "res_multistep_a": (resolve("res_multistep_a").solver, 2, 1.9e-3),
    "dpmpp_3m_sde": (partial(dpmpp_3m_sde, eta=1.0), 2, 7e-4),
    "dpmpp_3m_sde_taylor": (partial(dpmpp_3m_sde_taylor, eta=1.0), 2, 4e-4),
    "er_sde": (partial(er_sde, eta=1.0), 2, 4e-4),
    "sa_solver": (partial(sa_solver, eta=1.0), 2, 1.3e-3),
    "sa_solver 3, 4": (partial(sa_solver, eta=1.0, predictor_order=3, corrector_order=4), 2, 2e-4),
    "sa_solver eps": (partial(sa_solver, eta=1.0, algorithm_type="noise_prediction"), 2, 7e-4),
    "euler_churn": (partial(churn, solver=euler, **EDM), 0.5, 1.3e-1),
    "heun_churn": (partial(churn, solver=heun, **EDM), 1, 6.5e-3),
}


@pytest.mark.parametrize("name", LAWS)
def test_mean_and_variance_in_a_gaussian_world(name):
    """The mean is exact at any number of steps, and the variance's error falls as it should.

    Noise that is drawn afresh at every step has no higher weak order than 2 with these schemes.
    """
    solver, order, most = LAWS[name]
    coarse, fine = excess(solver, 80), excess(solver, 160)
    assert abs(fine) <= most
    assert math.log2(coarse / fine) >= order - 0.15


def test_dpmpp_sde_needs_brownian_noise():
    """Its two draws of a step begin at the same sigma: drawn apart, the variance is first order."""
    solver = partial(dpmpp_sde, eta=1.0)
    apart = [excess(solver, count) for count in (80, 160)]
    one_path = [excess(solver, count, brownian=True) for count in (80, 160)]
    assert apart == pytest.approx([-9.1e-2, -4.8e-2], abs=1e-3)
    assert one_path == pytest.approx([-1.7e-3, -3.9e-4], abs=1e-4)


def test_churn_needs_independent_noise():
    """On one path churn and the way down again share noise: BrownianNoise therefore refuses."""
    solver = partial(churn, solver=heun, **EDM)
    assert excess(solver, 160) < 7e-3
    assert excess(solver, 160, brownian=True) > 3
    noise = BrownianNoise((1,), (1, 2, 2))
    with pytest.raises(InputError, match="needs independent noise"):
        list(sample(WORLD, torch.ones(1, 1, 2, 2), even(5), solver, noise))


class Consistency(Gaussian):
    """The same world seen by its consistency function: x0 is the flow's end, and not E[x0 | x]."""

    def __call__(self, x, sigma):
        x0 = self.flow(x, sigma, 0.0)
        return Prediction(x0, (x - x0) / sigma)


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
def test_lcm_is_exact_with_a_consistency_function(steps):
    """Every jump lands on the world itself, whatever the steps; c_skip leaves 7e-6."""
    sigmas = [STABLE_DIFFUSION.sigma(t) for t in range(999, 0, -(1000 // steps))][:steps]
    found = moments(lcm, [*sigmas, 0.0], Consistency(MEAN, STD))
    assert found.mean == pytest.approx(MEAN, abs=1e-5)
    assert math.sqrt(found.variance) == pytest.approx(STD, abs=1e-5)


def test_tcd_between_ddim_and_a_full_jump():
    sigmas = [STABLE_DIFFUSION.sigma(t) for t in (999, 759, 499, 259, 0)]
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = lambda draw, *_: torch.full_like(x, float(draw + 1))  # noqa: E731
    none = list(sample(WORLD, x, sigmas, tcd))
    ddim = list(sample(WORLD, x, sigmas, euler))
    assert [torch.equal(a.x_next, b.x_next) for a, b in zip(none, ddim, strict=True)] == [True] * 4
    full = list(sample(WORLD, x, sigmas, partial(tcd, eta=1.0), one))
    for step in full:
        low = sigmas[-1]
        fresh = math.sqrt(step.sigma_next**2 - low**2) * (step.index + 1)
        expected = step.prediction.x0 + low * step.prediction.eps + fresh
        assert (step.x_next - expected).abs().max() <= 1e-14
    assert full[-1].draws == 3


X = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
DRAWS = torch.randn(99, 1, 2, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def curved(x, sigma):
    """A denoiser that is not linear, without a network."""
    scale = 1 / math.sqrt(1 + sigma**2)
    x0 = x * scale**2 + 0.3 * torch.sin(2 * scale * x + math.log(sigma + 1e-3))
    return Prediction(x0, (x - x0) / sigma)


def end(solver, sigmas, x=X):
    *_, step = sample(curved, x * sigmas[0], sigmas, solver, lambda draw, *_: DRAWS[draw])
    return step.x_next


def gap(one, two, sigmas):
    return (end(one, sigmas) - end(two, sigmas)).abs().max().item()


KARRAS = [(0.03 ** (1 / 7) + (15 ** (1 / 7) - 0.03 ** (1 / 7)) * i / 11) ** 7 for i in range(12)]
TO_ZERO = [*KARRAS[::-1], 0.0]


def test_without_noise_they_are_the_solvers_they_are_named_after():
    assert gap(dpmpp_2m_sde, dpmpp_2m, TO_ZERO) <= 1e-13
    assert gap(dpmpp_2m_sde, dpmpp_2m, TO_ZERO[:-1]) <= 1e-13
    assert gap(dpmpp_sde, dpmpp_2s, TO_ZERO) <= 1e-13
    assert gap(partial(churn, solver=heun), heun, TO_ZERO) == 0
    assert gap(ddpm, euler, TO_ZERO) == 0


def test_one_step_of_all_is_one_step():
    """Without a past they differ in nothing: eta 1 is DDPM's step, however it is written."""
    sigmas = [5.0, 2.0]
    squared = partial(er_sde, eta=1.0)
    for solver in (ddpm, dpmpp_2m_sde, dpmpp_3m_sde, sa_solver):
        assert gap(partial(solver, eta=1.0), partial(euler, eta=1.0), sigmas) <= 1e-13
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdcore.schedulers.solvers.er_sde.noise_scale", lambda sigma, eta: sigma**2)
        assert gap(squared, partial(euler, eta=1.0), sigmas) <= 1e-13


def test_sa_solver_without_its_shortcut_is_3m_sde():
    """Third-order predictor, no corrector but the predictor itself: the same exact integrals."""
    sigmas = [STABLE_DIFFUSION.sigma(t) for t in range(800, 199, -60)]  # noisy throughout
    predictor = partial(sa_solver, eta=1.0, predictor_order=3, lower_order_final=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdcore.schedulers.solvers.sa_solver.correct", lambda x, *_, **__: x)
        patch.setattr("sdcore.schedulers.solvers.sa_solver.few_steps", exact)
        plain = partial(multistep, eta=1.0, order=3, rule=exact)
        assert gap(predictor, plain, sigmas) <= 1e-13


def to_sigma_down(denoise, x, interval, memory, draw, *, stretched=True):
    """RES multistep as ComfyUI makes it ancestral: a line through two x0 down to sigma_down.

    stretched: their distance is the way that the last step took, to its own sigma_down.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    down, up = ancestral(sigma, sigma_next, 1.0)
    prediction = denoise(x, sigma)
    if sigma_next == 0:
        return prediction.x0, prediction, ()
    here = Memo("x0", sigma, prediction.x0)
    known = [here]
    for memo in memory:
        before = memo.sigma
        at = sigma * before / (ancestral(before, sigma, 1.0)[0] if stretched else sigma)
        known.append(memo._replace(sigma=at))
    x_next = exponential_step(x, known, down) + up * draw(sigma, sigma_next)
    return x_next, prediction, (here,)


def test_res_multistep_ancestral_is_2m_sde_heun():
    """And not its look-alike with the true distance, whose variance is of first order only."""
    ours = resolve("res_multistep_a")
    assert resolve("comfyui:res_multistep_ancestral").entry == ours.entry
    assert gap(ours.solver, to_sigma_down, TO_ZERO) <= 1e-13
    assert gap(resolve("res_multistep_a", eta=0.0).solver, res_multistep, TO_ZERO) <= 1e-13
    alike = partial(to_sigma_down, stretched=False)
    coarse, fine = excess(alike, 80), excess(alike, 160)
    assert fine == pytest.approx(6.0e-2, abs=1e-3)
    assert math.log2(coarse / fine) == pytest.approx(1.2, abs=0.05)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 20, 30])
@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (dpm2, "dpm_2_ancestral", {}),
        (dpmpp_2s, "dpmpp_2s_ancestral", {}),
        (dpmpp_sde, "dpmpp_sde", {}),
        (partial(dpmpp_sde, r=1 / 3), "dpmpp_sde", {"r": 1 / 3}),
        (dpmpp_2m_sde, "dpmpp_2m_sde", {"solver_type": "midpoint"}),
        (partial(dpmpp_2m_sde, solver_type="heun"), "dpmpp_2m_sde", {"solver_type": "heun"}),
        (dpmpp_3m_sde, "dpmpp_3m_sde", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_k_diffusion_with_the_same_noise(kd, ours, theirs, options, steps, eta):
    """Whole runs in float64. k-diffusion's 2M SDE and 3M SDE fail at a single step, into 0."""
    sigmas = kd.get_sigmas_karras(steps, 0.03, 14.6).double()
    count = iter(range(99))
    injected = {"noise_sampler": lambda *_: DRAWS[next(count)], "eta": eta, "disable": True}
    model = lambda x, sigma: curved(x, sigma.item()).x0  # noqa: E731
    run = partial(getattr(kd, f"sample_{theirs}"), model, X * sigmas[0], sigmas)
    if steps == 1 and "_2m_" in theirs:
        with pytest.raises(UnboundLocalError):
            run(**injected, **options)
        return
    if steps == 1 and "_3m_" in theirs:
        return
    expected = run(**injected, **options)
    found = end(partial(ours, eta=eta), sigmas.tolist())
    # Where sigma_next is far below sigma, their sigma_down is a difference of near equals.
    assert (found - expected).abs().max() <= (1e-8 if steps == 2 else 1e-11)


@pytest.mark.parametrize("solver", [euler, heun])
@pytest.mark.parametrize("steps", [1, 2, 10, 30])
def test_k_diffusion_churn(kd, solver, steps, monkeypatch):
    """It draws at every step; ours only where the noise is used."""
    sigmas = kd.get_sigmas_karras(steps, 0.03, 14.6).double()
    options = {"s_churn": 8.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.003}
    count = iter(range(99))
    monkeypatch.setattr(kd.torch, "randn_like", lambda x: DRAWS[next(count)])
    model = lambda x, sigma: curved(x, sigma.item()).x0  # noqa: E731
    run = getattr(kd, f"sample_{solver.__name__}")
    expected = run(model, X * sigmas[0], sigmas, disable=True, **options)
    used = [DRAWS[i] for i, sigma in enumerate(sigmas[:-1]) if 0.1 <= sigma <= 10]
    churned = partial(churn, solver=solver, eta=1.0, **options)
    noise = lambda draw, *_: used[draw]  # noqa: E731
    *_, step = sample(curved, X * sigmas[0], sigmas.tolist(), churned, noise)
    assert step.draws == len(used)
    assert (step.x_next - expected).abs().max() <= 1e-11


def test_er_sde_integrals():
    """The quadrature against 20000 midpoints, and against the closed form where phi is sigma."""
    for sigma, sigma_next in ((14.6, 9.0), (14.6, 0.03), (0.1, 0.03)):
        for power in (0, 1):
            step = math.log(sigma / sigma_next) / 20000
            points = [sigma_next * math.exp((i + 0.5) * step) for i in range(20000)]
            fine = sum(s * (s - sigma) ** power / noise_scale(s, 1.0) for s in points) * step
            assert integral(sigma, sigma_next, 1.0, power) == pytest.approx(fine, rel=1e-6)
        closed = math.log(sigma / sigma_next)
        assert integral(sigma, sigma_next, 0.0, 0) == pytest.approx(closed, rel=1e-12)
        closed = sigma - sigma_next - sigma * math.log(sigma / sigma_next)
        assert integral(sigma, sigma_next, 0.0, 1) == pytest.approx(closed, rel=1e-12)
    assert POINTS == 16


def test_er_sde_as_published_code_sums_its_integrals():
    """Rectangles at 200 points, as the authors' code takes them, end 5e-3 apart after 12 steps."""

    def rectangles(sigma, sigma_next, eta, power):
        width = (sigma - sigma_next) / 200
        points = [sigma_next + i * width for i in range(200)]
        return sum((s - sigma) ** power / noise_scale(s, eta) for s in points) * width

    whole = end(partial(er_sde, eta=1.0), TO_ZERO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdcore.schedulers.solvers.er_sde.integral", rectangles)
        summed = end(partial(er_sde, eta=1.0), TO_ZERO)
    assert (whole - summed).abs().max() == pytest.approx(4.84e-3, rel=0.01)


SOLVERS = {
    "ddpm": ddpm,
    "dpm2": dpm2,
    "dpmpp_2s": dpmpp_2s,
    "dpmpp_sde": dpmpp_sde,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "dpmpp_3m_sde_taylor": dpmpp_3m_sde_taylor,
    "er_sde": er_sde,
    "sa_solver": sa_solver,
    "tcd": tcd,
    "churn": partial(churn, s_churn=40.0),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_nothing_is_drawn_without_eta(name):
    *_, step = sample(curved, X, TO_ZERO, SOLVERS[name])
    assert step.draws == 0


@pytest.mark.parametrize("name", SOLVERS)
def test_nothing_is_drawn_on_the_way_up(name):
    """Inversion is deterministic, also with eta."""
    *_, step = sample(curved, X, TO_ZERO[-2::-1], partial(SOLVERS[name], eta=1.0))
    assert step.draws == 0
    assert step.x_next.isfinite().all()


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in ("churn", "tcd")])
def test_a_last_step_of_no_length_does_nothing(name):
    """diffusers' karras sigmas without a zero end with the least sigma twice."""
    sigmas = TO_ZERO[:-1]
    options = {"lower_order_final": False} if "2m" in name else {}
    solver = partial(SOLVERS[name], eta=1.0, **options)
    plain, repeated = end(solver, sigmas), end(solver, [*sigmas, sigmas[-1]])
    assert repeated.isfinite().all()
    if name != "sa_solver":  # its corrector mends the step before
        assert (plain - repeated).abs().max() <= 1e-14


def test_sa_solver_draws_from_the_first_step_to_the_last_noisy_one():
    """So draw i belongs to step i, as in the published code, which draws at every step."""
    sigmas = [STABLE_DIFFUSION.sigma(t) for t in range(999, -1, -111)]
    noise = SeededNoise((3,), (2, 4, 4))
    steps = list(sample(curved, X, sigmas, partial(sa_solver, eta=1.0), noise))
    assert [step.draws for step in steps] == [1, 2, 3, 4, 5, 6, 7, 8, 8][: len(steps)]


def test_assigning_x_next_counts_in_sa_solver_too():
    """Its corrector moves the x that it finds; it does not start again from the one before."""
    sigmas = TO_ZERO
    ends = []
    for shift in (0.0, 5.0):
        for step in sample(curved, X * sigmas[0], sigmas, sa_solver):
            if step.index == 9:
                step.x_next = step.x_next + shift
            if step.index == 10:
                ends.append(step.x_next)
    assert (ends[1] - ends[0]).abs().min() > 0.1
