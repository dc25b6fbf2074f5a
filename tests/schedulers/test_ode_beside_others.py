"""The deterministic solvers against live diffusers and k-diffusion, on whole fed-back trajectories.

As in test_beside_diffusers.py: the maximum absolute error of the final latents in float32, relative
to the largest latent if that is above 1. Where diffusers is wrong: test_quirks.py.
"""

import math
from functools import partial

import pytest
import torch

from scripts.trajectories import (
    SD,
    SEEDS,
    SHAPE,
    diffusers_latents,
    our_latents,
    our_steps,
    reference,
    weigh_in_float64,
)
from sdcore.lab import Gaussian
from sdcore.noise import SeededNoise
from sdcore.sampling import Interval, Prediction, State, sample
from sdcore.schedulers import resolve
from sdcore.schedulers.solvers.adaptive import dpm_23, dpm_adaptive
from sdcore.schedulers.solvers.lms import ipndm
from sdcore.schedulers.spacing.sigmas import karras
from tests.schedulers.test_beside_diffusers import LIMIT, PREDICTIONS, off

diffusers = pytest.importorskip("diffusers")
diffusers.logging.set_verbosity_error()

gaussian = Gaussian(0.3, 0.5)
COUNTS = (1, 2, 3, 5, 10, 20, 30)
NAMES = ("lms", "dpm2", "dpmpp_singlestep", "unipc", "deis")


def runs():
    for name in NAMES:
        for spacing in ("leading", "trailing", "linspace", "karras"):
            if name == "dpmpp_singlestep" and spacing in ("leading", "trailing"):
                continue  # the reference lays linspace whatever it is told
            for prediction in PREDICTIONS:
                if name != "dpm2" or prediction != "sample":  # the reference refuses x0
                    yield name, spacing, prediction


@pytest.mark.parametrize(("name", "spacing", "prediction"), [*runs()])
def test_whole_runs(name, spacing, prediction):
    ours = resolve(name, spacing=spacing, config={**SD, "prediction_type": prediction})
    theirs = reference(name, spacing, prediction_type=prediction)
    for steps in COUNTS if prediction == "epsilon" else (2, 10, 20):
        if name == "deis" and spacing == "karras" and steps == 1:
            continue  # the reference stays where it is: test_quirks
        expected = diffusers_latents(theirs, steps)
        assert off(our_latents(ours, steps), expected) <= LIMIT, steps


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lms"])
def test_image_to_image(name):
    x0 = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(5))
    scheduler, theirs = resolve(name), reference(name)
    for steps, start in ((10, 1), (10, 5), (12, 2), (20, 19)):
        x = x0 + SeededNoise(SEEDS, SHAPE).start() * scheduler.plan(steps).sigmas[start]
        ours = our_latents(scheduler, steps, start=start, x=x)
        expected = diffusers_latents(theirs, steps, start=start, x0=x0)
        assert off(ours, expected) <= LIMIT, (steps, start)


TO_SIGMA_MIN = {"final_sigmas_type": "sigma_min"}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("unipc", {"solver_order": 1}),
        ("unipc", {"solver_order": 3}),
        ("unipc", {**TO_SIGMA_MIN, "solver_type": "bh1"}),
        ("unipc", {**TO_SIGMA_MIN, "solver_type": "bh1", "solver_order": 1}),
        ("unipc", {**TO_SIGMA_MIN, "solver_type": "bh1", "solver_order": 3}),
        ("unipc", {"solver_order": 3, "use_karras_sigmas": True}),
        ("unipc", TO_SIGMA_MIN),
        ("unipc", {**TO_SIGMA_MIN, "lower_order_final": False, "solver_order": 3}),
        ("unipc", {**TO_SIGMA_MIN, "predict_x0": False}),
        ("unipc", {**TO_SIGMA_MIN, "predict_x0": False, "solver_type": "bh1"}),
        ("unipc", {**TO_SIGMA_MIN, "predict_x0": False, "solver_order": 3}),
        ("unipc", {"disable_corrector": [0, 1, 5], "solver_order": 3}),
        ("unipc", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}),
        ("deis", {"solver_order": 1}),
        ("deis", {"solver_order": 3}),
        ("deis", {"solver_order": 3, "lower_order_final": False}),
        ("deis", {"lower_order_final": False, "timestep_spacing": "trailing"}),
        ("dpmpp_singlestep", {"solver_order": 1}),
        ("dpmpp_singlestep", {"solver_order": 3}),
        ("dpmpp_singlestep", {"solver_type": "heun"}),
        ("dpmpp_singlestep", {"solver_order": 3, "solver_type": "heun"}),
        ("dpmpp_singlestep", TO_SIGMA_MIN),
        ("dpmpp_singlestep", {**TO_SIGMA_MIN, "solver_order": 3}),
        ("dpmpp_singlestep", {**TO_SIGMA_MIN, "lower_order_final": True}),
        ("dpmpp_2m", {"solver_type": "heun"}),
        ("dpmpp_2m", {"solver_type": "heun", "use_karras_sigmas": True}),
        ("lms", {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(map("=".join, text(value))),
)
def test_config_fields(name, fields):
    ours = resolve(name, config={**SD, **fields})
    for steps in (1, 2, 3, 5, 10, 20):
        theirs = reference(name, **fields)  # singlestep's rewrites its config as it runs
        if name == "deis":
            weigh_in_float64(theirs)
        if fields.get("solver_order", 0) > steps and name == "dpmpp_singlestep":
            continue  # the reference asks for at least a block
        expected = diffusers_latents(theirs, steps)
        assert off(our_latents(ours, steps), expected) <= LIMIT, steps


def text(fields):
    return [(key, str(value)) for key, value in fields.items()]


@pytest.mark.parametrize("fields", [{}, {"solver_type": "heun"}, {"use_karras_sigmas": True},
                                    {"euler_at_final": True, **TO_SIGMA_MIN},
                                    {"lower_order_final": False, **TO_SIGMA_MIN}])  # fmt: skip
def test_dpmpp_3m(fields):
    """The published third order, which is diffusers' solver_order 3."""
    ours = resolve("dpmpp_3m", config={**SD, **fields})
    for steps in COUNTS:
        theirs = diffusers_latents(reference("dpmpp_2m", solver_order=3, **fields), steps)
        assert off(our_latents(ours, steps), theirs) <= LIMIT, steps


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("fields", [{}, {"solver_type": "heun"}, {"use_karras_sigmas": True},
                                    {"euler_at_final": True}, {"lower_order_final": False},
                                    {"timestep_spacing": "leading"}, {"thresholding": True},
                                    {"timestep_spacing": "trailing"},
                                    {"prediction_type": "v_prediction"},
                                    {"prediction_type": "sample"}],
                         ids=lambda value: ",".join(map("=".join, text(value))))  # fmt: skip
def test_dpm_solver_of_eps(order, fields):
    """algorithm_type "dpmsolver", which the reference, too, ends at sigma_min only."""
    fields = {"algorithm_type": "dpmsolver", "solver_order": order, **TO_SIGMA_MIN, **fields}
    ours = resolve("DPMSolverMultistepScheduler", config={**SD, **fields})
    no_number = order == 3 and "use_karras_sigmas" in fields  # there, from N = 15: test_quirks
    for steps in (1, 2, 3, 5, 10) if no_number else COUNTS:
        expected = diffusers_latents(reference("dpmpp_2m", **fields), steps)
        assert off(our_latents(ours, steps), expected) <= LIMIT, steps


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("to_zero", [False, True])
def test_pndm_with_its_runge_kutta_start(spacing, to_zero):
    """Where the reference is right: even strides, at least four steps, from pure noise."""
    fields = {"skip_prk_steps": False, "set_alpha_to_one": to_zero}
    ours = resolve(config={**SD, **fields, "timestep_spacing": spacing})
    for steps in (4, 5, 10, 20, 25, 50):
        expected = diffusers_latents(reference("pndm", spacing, **fields), steps)
        assert off(our_latents(ours, steps), expected) <= LIMIT, steps
        done, _ = our_steps(ours, steps)
        assert [step.nfe for step in done] == [4, 4, 4] + [1] * (steps - 3)


def test_ipndm_has_diffusers_weights():
    """From its second step: diffusers' class has its own noise schedule, and predicts v."""
    theirs = diffusers.IPNDMScheduler()
    theirs.set_timesteps(12)
    theirs.set_begin_index(1)
    alphas, betas = theirs.alphas.double(), theirs.betas.double()
    sigmas = (betas / alphas).tolist()[1:]
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = []
    latents = x * alphas[1]
    for i, t in enumerate(theirs.timesteps[1:-1], start=1):
        p = gaussian(latents / alphas[i], sigmas[i - 1])
        v = alphas[i] * p.eps - betas[i] * p.x0
        latents = theirs.step(v, t, latents).prev_sample
        ends.append(latents / alphas[i + 1])
    for step, end in zip(sample(gaussian, x, sigmas, ipndm), ends, strict=False):
        assert (step.x_next - end).abs().max() <= 1e-5


SIGMAS = [14.6 * 0.002 ** (i / 15) ** 1.3 for i in range(16)] + [0.0]
X = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(8), dtype=torch.float64) * 14.6


def bent(x, sigma):
    """A denoiser that is not linear in x."""
    sigma = float(sigma.flatten()[0]) if torch.is_tensor(sigma) else sigma
    p = gaussian(x, sigma)
    x0 = p.x0 + 0.2 * torch.sin(3 * x / math.hypot(1, sigma) + sigma)
    return Prediction(x0, (x - x0) / sigma if sigma else p.eps)


def x0_of(x, sigma, **_):
    return bent(x, sigma).x0


@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        ("lms", "sample_lms", {}),
        ("dpm2", "sample_dpm_2", {}),
        ("dpmpp_2s", "sample_dpmpp_2s_ancestral", {"eta": 0.0}),
    ],
)
def test_k_diffusion_in_float64(kd, name, theirs, options):
    expected = getattr(kd, theirs)(
        x0_of, X, torch.tensor(SIGMAS, dtype=torch.float64), disable=True, **options
    )
    (*_, last) = sample(bent, X, SIGMAS, resolve(name).solver)
    assert (last.x_next - expected).abs().max() <= 1e-6 if name == "lms" else 1e-12


def test_the_adaptive_pair_is_k_diffusions(kd):
    sigma, h = 3.0, 0.7
    expected = kd.DPMSolver(x0_of)
    t = torch.tensor(-math.log(sigma), dtype=torch.float64)
    low, _ = expected.dpm_solver_2_step(X, t, t + h, r1=1 / 3)
    high, _ = expected.dpm_solver_3_step(X, t, t + h)
    ours = dpm_23(lambda x, s: bent(x, s).eps, X, bent(X, sigma).eps, sigma, h)
    assert (ours[0] - low).abs().max() <= 1e-12
    assert (ours[1] - high).abs().max() <= 1e-12


@pytest.mark.parametrize("steps", [2, 3, 6])
def test_dpm_fast_is_k_diffusions(kd, steps):
    """Its n is the number of evaluations, here 3 (N - 1)."""
    sigmas = [14.6 * (0.03 / 14.6) ** (i / steps) for i in range(steps + 1)]
    start, end = (-torch.tensor(sigmas, dtype=torch.float64).log())[[0, -1]]
    expected = kd.DPMSolver(x0_of).dpm_solver_fast(X, start, end, 3 * (steps - 1))
    done = list(sample(bent, X, sigmas, resolve("dpm_fast").solver))
    assert sum(step.nfe for step in done) == 3 * (steps - 1)
    assert (done[-1].x_next - expected).abs().max() <= 1e-5  # its times are float32


def test_adaptive_meets_its_tolerance_over_any_interval():
    """One interval from 14.6 to 0.03: more calls, less error."""
    x = X[:1]
    (*_, fine) = sample(
        bent, x, [14.6 * (0.03 / 14.6) ** (i / 800) for i in range(801)], resolve("heun").solver
    )
    errors, calls = [], []
    for rtol in (0.05, 0.005, 0.0005):
        solver = partial(dpm_adaptive, rtol=rtol, atol=rtol / 10)
        (step,) = sample(bent, x, [14.6, 0.03], solver)
        errors.append((step.x_next - fine.x_next).abs().max().item())
        calls.append(step.nfe)
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert calls[0] < calls[1] < calls[2]
    assert errors[2] <= 0.005


def test_restart_is_heun_up_and_down_again():
    """Written out: noise from the sigma nearest to 0.1 up to that nearest to 2, and Heun back."""
    sigmas = [10.0, 4.0, 2.2, 0.9, 0.3, 0.11, 0.04, 0.0]
    noise = torch.ones_like(X)
    heun = resolve("heun").solver
    x = X
    for i in range(7):
        x, *_ = heun(
            bent, x, Interval(sigmas[i], sigmas[i + 1], i, 7, sigmas), (), lambda *_: noise
        )
        if sigmas[i + 1] == 0.11:
            x = x + noise * math.sqrt(2.2**2 - 0.11**2)
            for step in sample(bent, State(x), karras(2.2, 0.11, 10), heun):
                x = step.x_next
    steps = list(sample(bent, X, sigmas, resolve("restart").solver, lambda *_: noise))
    assert (steps[-1].x_next - x).abs().max() <= 1e-12
    assert [step.nfe for step in steps] == [2, 2, 2, 2, 20, 2, 1]
