"""Grids: against diffusers for every number of steps, golden values, ends, and refusals."""

import math

import pytest
import torch

from sdcore.errors import InputError
from sdcore.schedulers import SPACINGS, TABLE, NoiseSchedule, Spacing, resolve
from sdcore.schedulers.spacing import at_timesteps
from tests.toys import CLASSES, SD

EVERY = (*range(1, 64), 71, 99, 100, 128, 250, 333, 499, 500, 501, 750, 997, 998, 999, 1000)


def ulps(ours, theirs):
    """The largest distance in float32 steps."""
    a = torch.tensor(ours, dtype=torch.float32).view(torch.int32)
    return (a - theirs.float().view(torch.int32)).abs().max().item()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_and_sigmas_equal_diffusers(name, spacing):
    """t exactly, sigma to 1 float32 step, for every N that either can do."""
    diffusers = pytest.importorskip("diffusers")
    theirs = getattr(diffusers, CLASSES[name]).from_config({**SD, "timestep_spacing": spacing})
    ours = resolve(name, spacing=spacing)
    counts = range(1, 1001) if spacing == "trailing" and name != "heun" else EVERY
    compared = 0
    for steps in counts:
        try:
            plan = ours.plan(steps)
        except InputError:
            continue
        theirs.set_timesteps(steps)
        t = theirs.timesteps
        if name == "heun":
            t = t[::2] if steps > 1 else t
        if name == "pndm":
            t = torch.cat([t[:1], t[2:]])  # without the doubled second one
        assert list(plan.timesteps) == t[:steps].tolist(), steps
        if hasattr(theirs, "sigmas"):
            sigmas = theirs.sigmas
            sigmas = torch.cat([sigmas[:1], sigmas[1::2]]) if name == "heun" else sigmas
            assert ulps(plan.sigmas[:-1], sigmas[:steps]) <= 1, steps
        compared += 1
    assert compared >= len(counts) - 3


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("euler", {}),
        ("euler", {"timestep_spacing": "leading"}),
        ("euler", {"timestep_spacing": "trailing"}),
        ("heun", {"timestep_spacing": "leading"}),
        ("dpmpp_2m", {}),
        ("dpmpp_2m", {"timestep_spacing": "leading"}),
    ],
)
def test_karras_equals_diffusers(name, fields):
    diffusers = pytest.importorskip("diffusers")
    config = {**SD, **fields, "use_karras_sigmas": True}
    theirs = getattr(diffusers, CLASSES[name]).from_config(config)
    for steps in (1, 2, 3, 10, 20, 33, 50, 100):
        theirs.set_timesteps(steps)
        plan = resolve(name, config=config).plan(steps)
        every = slice(None, None, 2) if name == "heun" else slice(None)
        t = theirs.timesteps[every]
        sigmas = theirs.sigmas
        sigmas = torch.cat([sigmas[:1], sigmas[1::2]]) if name == "heun" else sigmas
        assert ulps(plan.sigmas, sigmas) <= 1, steps
        # diffusers takes the logarithms in float32: a cell of 0.005 to 0.35 to 2.4e-7
        assert max(abs(a - b) for a, b in zip(plan.timesteps, t.tolist(), strict=True)) <= 2e-4


@pytest.mark.parametrize(
    ("name", "spacing", "golden"),
    [
        ("euler", "linspace", "14.61 7.84 4.609 2.918 1.95 1.345 .9324 .625 .3687 .02917 0"),
        ("dpmpp_2m", "linspace", "14.61 8.303 5.088 3.321 2.276 1.618 1.164 .8328 .5717 .3439 0"),
        ("euler", "trailing", "14.61 8.303 5.088 3.321 2.276 1.613 1.161 .8299 .5693 .3417 0"),
        ("euler", "leading", "8.391 5.134 3.348 2.293 1.624 1.168 .8357 .5741 .3462 .04131 0"),
        ("euler", "karras", "14.61 9.103 5.478 3.169 1.749 .9141 .4469 .2014 .08191 .02917 0"),
    ],
)
def test_golden_numbers(name, spacing, golden):
    sigmas = resolve(name, spacing=spacing).plan(10).sigmas
    assert [float(f"{sigma:.4g}") for sigma in sigmas] == [
        float(f"{float(number):.4g}") for number in golden.split()
    ] or sigmas == pytest.approx([float(number) for number in golden.split()], rel=7e-4)


def test_ends_are_data():
    euler, ddim = resolve("euler").plan(20), resolve("ddim").plan(20)
    assert euler.start_scale == euler.sigmas[0] == pytest.approx(14.614647, abs=1e-6)
    assert (euler.sigmas[-1], euler.end_scale) == (0.0, 1.0)
    assert resolve("euler", spacing="leading").plan(20).start_scale == pytest.approx(
        math.hypot(1, 11.02834), abs=1e-5
    )
    assert ddim.start_scale == math.hypot(1, ddim.sigmas[0])
    assert ddim.sigmas[-1] == pytest.approx(0.029167533, abs=1e-8)
    assert ddim.end_scale == 1 / math.hypot(1, ddim.sigmas[-1])
    to_one = resolve("ddim", config={**SD, "set_alpha_to_one": True}).plan(20)
    assert (to_one.sigmas[-1], to_one.end_scale) == (0.0, 1.0)


@pytest.mark.parametrize("name", [entry.name for entry in TABLE])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_scheduler_takes_every_spacing(name, spacing):
    for steps in (1, 2, 3, 10, 61, 100):
        plan = resolve(name, spacing=spacing).plan(steps)
        assert len(plan.sigmas) == steps + 1
        assert len(plan.timesteps) == steps
        assert all(isinstance(value, float) for value in (*plan.sigmas, *plan.timesteps))
        assert all(a > b for a, b in zip(plan.sigmas[:-1], plan.sigmas[1:-1], strict=False))
        assert plan.sigmas[-2] >= plan.sigmas[-1] >= 0
        for sigma, t in zip(plan.sigmas, plan.timesteps, strict=False):
            assert plan.timestep(sigma) == t


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "20", None])
def test_steps_must_be_a_number_of_steps(steps):
    with pytest.raises(InputError, match="whole number of at least 1"):
        resolve("euler").plan(steps)


@pytest.mark.parametrize(("spacing", "steps"), [("leading", 1000), ("trailing", 1001)])
def test_too_many_steps_are_refused(spacing, steps):
    resolve("ddim", spacing=spacing).plan(steps - 1)
    with pytest.raises(InputError, match=r"fewer"):
        resolve("ddim", spacing=spacing).plan(steps)


def test_infinite_sigma_is_refused_with_a_reason():
    fields = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    with pytest.raises(InputError, match="infinite sigma"):
        resolve("ddim", config={**SD, **fields}).plan(10)


def test_a_spacing_of_ones_own():
    def rule(schedule: NoiseSchedule, steps: int):
        return at_timesteps(schedule, [900 - 90 * i for i in range(steps)])

    plan = resolve("heun", spacing=Spacing("mine", rule)).plan(5)
    assert plan.timesteps == (900.0, 810.0, 720.0, 630.0, 540.0)
    assert plan.start_scale == plan.sigmas[0]
