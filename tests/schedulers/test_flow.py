"""Flow matching: its path, its grids and its loops, beside diffusers and beside exact solutions."""

import math

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from scripts.trajectories import wavy
from sdcore.denoiser import Denoiser
from sdcore.errors import InputError
from sdcore.guidance import CFG
from sdcore.lab.worlds import Gaussian, Mixture, denoiser
from sdcore.noise import SeededNoise
from sdcore.process import FLOW, RectifiedFlow, VariancePreserving, process_of
from sdcore.sampling import sample
from sdcore.schedulers import TABLE, resolve
from sdcore.schedulers.flow_schedule import FlowSchedule, Shift, mu_of, to_s, to_sigma
from sdcore.schedulers.spacing import SPACINGS
from sdcore.schedulers.spacing.flow import LEVELS

EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
NOISE = SeededNoise((0, 1), (4, 8, 8))
ULP = torch.finfo(torch.float32).eps


def run(scheduler, steps, network=wavy):
    """The trajectory in the network's form, (1 - s) x0 + s eps, in float32."""
    plan = scheduler.plan(steps)
    process = process_of(scheduler.prediction_type, plan)
    denoise = Denoiser(network, process, {"cond": {}}, CFG(1))
    x = NOISE.start() * plan.start_scale
    return plan, [
        step.x_next / (1 + step.sigma_next)
        for step in sample(denoise, x, plan.sigmas, scheduler.solver, NOISE)
    ]


def theirs(scheduler, network=wavy, per_step=1):
    """diffusers' own loop: x after each step."""
    x, states = NOISE.start(), []
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, float(t)), t, x).prev_sample
        states.append(x)
    return [*states[:1], *states[2::2]] if per_step == 2 else states


def test_what_the_path_is():
    process = process_of(FLOW, FlowSchedule())
    assert isinstance(process, RectifiedFlow)
    x0, eps = torch.randn(2, 1, 4, 4, 4, dtype=torch.float64)
    for s in (0.001, 0.3, 0.999):
        sigma = to_sigma(s)
        assert to_s(sigma) == pytest.approx(s, rel=1e-12)
        assert process.clock.timestep(sigma) == pytest.approx(1000 * s, rel=1e-12)
        seen = (1 - s) * x0 + s * eps
        x = x0 + sigma * eps
        torch.testing.assert_close(x * process.c_in(sigma), seen)
        found = process.x0_eps(eps - x0, x, sigma)
        for ours, exact in zip(found, (x0, eps), strict=True):
            torch.testing.assert_close(ours, exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
        {"use_dynamic_shifting": True, "mu": 0.9},
        {"use_dynamic_shifting": True, "mu": 2.5, "time_shift_type": "linear"},
        {"use_dynamic_shifting": True, "mu": 0.9, "shift_terminal": 0.02},
    ],
    ids=lambda fields: "-".join(fields) or "plain",
)
def test_flow_match_eulers_grid_to_an_ulp(fields, steps):
    if steps == 1 and ("shift_terminal" in fields or "use_karras_sigmas" in fields):
        pytest.skip("diffusers divides by 0")
    config = {key: value for key, value in fields.items() if key != "mu"}
    other = FlowMatchEulerDiscreteScheduler(**config)
    other.set_timesteps(steps, **({"mu": fields["mu"]} if "mu" in fields else {}))
    plan = resolve(config={**EULER, **fields}).plan(steps)
    levels = torch.tensor([min(t / 1000, 1.0) for t in plan.timesteps])
    torch.testing.assert_close(levels, other.sigmas[:-1], rtol=4 * ULP, atol=ULP)
    ours = torch.tensor([to_s(sigma) for sigma in plan.sigmas])
    torch.testing.assert_close(ours, other.sigmas, rtol=4 * ULP, atol=1.1e-6)  # 1 is 1 - 1e-6


def test_a_shift_is_taken_once():
    """diffusers shifts the ends of its own grid twice (its issue 13243), here they are shifted."""
    other = FlowMatchEulerDiscreteScheduler(shift=3.0)
    other.set_timesteps(4)
    plan = resolve(config={**EULER, "shift": 3.0}).plan(4)
    right = Shift(3.0)(1 / 1000)
    assert plan.timesteps[-1] / 1000 == pytest.approx(right)
    assert other.sigmas[-2].item() == pytest.approx(Shift(3.0)(right), rel=1e-5)
    other.set_timesteps(sigmas=[1.0, 0.667, 0.334, 0.001])  # of explicit ones it shifts once
    assert other.sigmas[-2].item() == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize("steps", [4, 20])
def test_euler_is_flow_match_euler(steps):
    other = FlowMatchEulerDiscreteScheduler()
    other.set_timesteps(steps)
    _, ours = run(resolve(config=EULER), steps)
    for mine, its in zip(ours, theirs(other), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [4, 20])
def test_heun_is_flow_match_heun(steps):
    config = {"_class_name": "FlowMatchHeunDiscreteScheduler", "shift": 1.0}
    other = FlowMatchHeunDiscreteScheduler(shift=1.0)
    other.set_timesteps(steps)
    scheduler = resolve(config=config)
    assert scheduler.name == "heun"
    _, ours = run(scheduler, steps)
    states = theirs(other)[1::2]
    for mine, its in zip(ours, states, strict=False):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_unipc_with_flow_sigmas(steps, shift):
    fields = {"prediction_type": FLOW, "use_flow_sigmas": True, "flow_shift": shift}
    other = UniPCMultistepScheduler(**fields)
    other.set_timesteps(steps)
    _, ours = run(resolve(config={"_class_name": "UniPCMultistepScheduler", **fields}), steps)
    told = iter([t / 1000 * 1000 for t in resolve(config={**EULER, "shift": shift},
                 spacing="trailing").plan(steps).timesteps])  # fmt: skip
    # diffusers cuts t to a whole one; the same t is told to both here
    its = theirs(other, lambda x, t: wavy(x, next(told)))
    for mine, other_x in zip(ours, its, strict=True):
        torch.testing.assert_close(mine, other_x, rtol=0, atol=2e-5)
