"""Whole fed-back trajectories against live diffusers, where it is right (else: test_quirks).

Every comparison is the maximum absolute error of the final latents, relative to the largest latent
if that is above 1.
"""

import pytest
import torch

from scripts.trajectories import (
    CLASS_OF,
    SD,
    SEEDS,
    SHAPE,
    apart,
    diffusers_latents,
    our_latents,
    our_steps,
    reference,
)
from sdcore.checkpoints import open_model
from sdcore.noise import SeededNoise
from sdcore.schedulers import resolve
from sdcore.schedulers.config import SPACING

diffusers = pytest.importorskip("diffusers")
diffusers.logging.set_verbosity_error()

COUNTS = (
    1,
    2,
    5,
    20,
    50,
)  # divisors of 1000, where diffusers' DDIM and PNDM are right in `trailing`
LIMIT = 1e-5
NAMES = ("ddim", "pndm", "euler", "euler_a", "heun", "dpmpp_2m")
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def off(ours, theirs):
    assert ours.dtype == torch.float32
    return apart(ours, theirs)


def combinations():
    for name in NAMES:
        for spacing in ("leading", "trailing", "linspace", "karras"):
            if spacing == "karras" and name in ("ddim", "pndm", "euler_a"):
                continue  # the reference has none
            if spacing == "linspace" and name in ("ddim", "pndm"):
                continue  # the reference is wrong: test_quirks
            for prediction in PREDICTIONS:
                if prediction != "epsilon" and name == "pndm":
                    continue  # wrong for v, refuses x0
                if prediction == "sample" and name == "euler_a":
                    continue  # refuses x0
                yield name, spacing, prediction


@pytest.mark.parametrize(("name", "spacing", "prediction"), [*combinations()])
def test_whole_runs(name, spacing, prediction):
    ours = resolve(name, spacing=spacing, config={**SD, "prediction_type": prediction})
    for steps in COUNTS:
        if name == "heun" and steps < 20:
            continue  # the reference divides its rounding by sigma_next: next test
        theirs = diffusers_latents(reference(name, spacing, prediction_type=prediction), steps)
        assert off(our_latents(ours, steps), theirs) <= LIMIT, steps


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "karras"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_heun_in_float64(spacing, prediction):
    """Heun asks at sigma_next, and (x - x0) / sigma_next multiplies float32 rounding by up to 501.

    In float64 what is left is diffusers' float32 sigmas.
    """
    ours = resolve("heun", spacing=spacing, config={**SD, "prediction_type": prediction})
    for steps in COUNTS:
        plan = ours.plan(steps)
        x = SeededNoise(SEEDS, SHAPE).start().double()
        theirs = reference("heun", spacing, prediction_type=prediction)
        expected = diffusers_latents(theirs, steps, dtype=torch.float64)
        done, _ = our_steps(ours, steps, x=x * plan.start_scale)
        assert done[-1].x_next.dtype == torch.float64
        error = (done[-1].x_next - expected).abs().max() / expected.abs().max().clamp(min=1)
        assert error <= LIMIT, steps


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("to_one", [False, True])
def test_ddim_eta_draws_the_same_noise(eta, spacing, to_one):
    config = {**SD, "set_alpha_to_one": to_one}
    for steps in COUNTS:
        theirs = reference("ddim", spacing, set_alpha_to_one=to_one)
        expected = diffusers_latents(theirs, steps, eta=eta)
        ours = our_latents(resolve("ddim", spacing, eta, config), steps)
        assert off(ours, expected) <= LIMIT, steps


@pytest.mark.parametrize(
    ("name", "spacing"),
    [
        (name, spacing)
        for name in NAMES
        for spacing in ("leading", "trailing", "linspace", "karras")
        if name != "pndm" and not (name in ("ddim", "euler_a") and spacing == "karras")
        if (name, spacing) != ("ddim", "linspace")
    ],
)
def test_image_to_image(name, spacing):
    x0 = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(5))
    scheduler = resolve(name, spacing=spacing)
    for steps, start in ((10, 1), (10, 5), (20, 19)):
        x = x0 + SeededNoise(SEEDS, SHAPE).start() * scheduler.plan(steps).sigmas[start]
        ours = our_latents(scheduler, steps, start=start, x=x)
        theirs = diffusers_latents(reference(name, spacing), steps, start=start, x0=x0)
        assert off(ours, theirs) <= LIMIT, (steps, start)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ddim", {"beta_schedule": "linear"}),
        ("euler", {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"}),
        ("dpmpp_2m", {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"}),
        ("ddim", {"set_alpha_to_one": True}),
        ("pndm", {"set_alpha_to_one": True}),
        ("euler", {"final_sigmas_type": "sigma_min"}),
        ("dpmpp_2m", {"final_sigmas_type": "sigma_min"}),
        ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
        ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "euler_at_final": True}),
        ("dpmpp_2m", {"timestep_spacing": "leading", "use_karras_sigmas": True}),
        ("euler", {"timestep_spacing": "leading", "use_karras_sigmas": True}),
        ("heun", {"timestep_spacing": "trailing", "use_karras_sigmas": True}),
        ("euler", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}),
        ("euler", {"use_exponential_sigmas": True}),
        ("euler", {"use_exponential_sigmas": True, "timestep_spacing": "leading"}),
        ("euler", {"use_beta_sigmas": True}),
        ("heun", {"use_beta_sigmas": True, "timestep_spacing": "trailing"}),
        ("dpmpp_2m", {"use_lu_lambdas": True}),
        ("dpmpp_2m", {"lambda_min_clipped": -1.0}),
        ("dpmpp_2m", {"lambda_min_clipped": -1.0, "timestep_spacing": "leading"}),
        ("dpmpp_2m", {"solver_order": 1}),
        ("ddim", {"thresholding": True}),
        ("ddim", {"thresholding": True, "sample_max_value": 1.5}),
        ("dpmpp_2m", {"thresholding": True, "dynamic_thresholding_ratio": 0.9}),
        ("ddim", {"num_train_timesteps": 500}),
        ("ddim", {"trained_betas": [0.001 + 0.00001 * i for i in range(1000)]}),
    ],
)
def test_config_fields(name, fields):
    for steps in (20, 50) if name == "heun" else (2, 10, 20, 50):
        theirs = diffusers_latents(reference(name, **fields), steps)
        ours = our_latents(resolve(CLASS_OF[name], config={**SD, **fields}), steps)
        assert off(ours, theirs) <= LIMIT, steps


@pytest.mark.parametrize("name", ["euler", "euler_a", "dpmpp_2m"])
def test_zero_terminal_snr(name):
    """v prediction at sigma 4096, the last entry of diffusers' rescaled tables.

    There the reference's (x - x0) / sigma * dt leaves 4096 * 2^-24 = 2.4e-4 of rounding.
    """
    fields = {
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "prediction_type": "v_prediction",
    }
    scheduler = resolve(name, config={**SD, **fields})
    assert scheduler.plan(10).sigmas[0] == pytest.approx(4096, rel=1e-6)
    for steps in (5, 20):
        theirs = diffusers_latents(reference(name, **fields), steps)
        limit = LIMIT if name == "dpmpp_2m" else 4 * 4096 * 2.0**-24
        assert off(our_latents(scheduler, steps), theirs) <= limit, steps


@pytest.mark.parametrize("name", ["ddim", "pndm", "ddpm", "lcm", "dpmpp_2m"])
def test_the_bundled_models_file_means_the_same_to_diffusers(name):
    """What the file leaves out would be each class's own default, as clipping x0 is DDIM's."""
    diffusers = pytest.importorskip("diffusers")
    config = dict(open_model("picturebook").scheduler)
    del config[SPACING]  # which diffusers passes over
    theirs = getattr(diffusers, CLASS_OF[name]).from_config(config)
    for steps in (4, 20):
        expected = diffusers_latents(theirs, steps)
        assert off(our_latents(resolve(name, config=config), steps), expected) <= LIMIT
