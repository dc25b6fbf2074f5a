"""Flow matching: its path, its grids and its loops, beside diffusers and beside exact solutions."""

from itertools import pairwise

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

from scripts.trajectories import wavy, weigh_in_float64
from sdcore.compare.quirks import number
from sdcore.denoiser import Denoiser
from sdcore.errors import InputError
from sdcore.guidance import CFG
from sdcore.lab.worlds import Mixture, denoiser, point
from sdcore.noise import SeededNoise
from sdcore.process import FLOW, RectifiedFlow, process_of, to_s
from sdcore.sampling import State, sample
from sdcore.schedulers import TABLE, resolve
from sdcore.schedulers.flow_schedule import FlowSchedule, Shift, mu_of, to_sigma
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
    twice = number("diffusers.flow_match.shift_twice")
    assert other.sigmas[-2].item() == pytest.approx(twice, rel=1e-3)
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
    other, fresh = (FlowMatchHeunDiscreteScheduler(shift=1.0) for _ in range(2))
    other.set_timesteps(steps)
    fresh.set_timesteps(steps)
    scheduler = resolve(config=config)
    assert scheduler.name == "heun"
    _, ours = run(scheduler, steps)
    states = theirs(other)[1::2]
    for mine, its in zip(ours, [*states, theirs(fresh)[-1]], strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-5)


MULTISTEP = ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler")


def with_flow_sigmas(class_name, steps, **fields):
    """(our trajectory, diffusers') where both networks are told the same t.

    diffusers cuts t to a whole one, so what the network is told there is taken from here.
    """
    fields = {"prediction_type": FLOW, "use_flow_sigmas": True, **fields}
    other = getattr(diffusers, class_name)(**fields)
    weigh_in_float64(other)
    other.set_timesteps(steps)
    plan, ours = run(resolve(config={"_class_name": class_name, **fields}), steps)
    told = iter(plan.timesteps)
    return ours, theirs(other, lambda x, t: wavy(x, next(told)))


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("class_name", MULTISTEP)
def test_flow_sigmas_of_the_multistep_classes(class_name, shift, steps):
    ours, its = with_flow_sigmas(class_name, steps, flow_shift=shift)
    apart = [(a - b).abs().max().item() for a, b in zip(ours, its, strict=True)]
    assert max(apart) < 2e-5, apart


@pytest.mark.parametrize("steps", [4, 20])
def test_deis_with_flow_sigmas_ends_at_the_picture(steps):
    """diffusers' ends where its last step begins, with that much noise left."""
    ours, its = with_flow_sigmas("DEISMultistepScheduler", steps)
    for mine, other in zip(ours[:-1], its[:-1], strict=True):  # its float32 weights cancel
        torch.testing.assert_close(mine.double(), other.double(), rtol=0, atol=3e-4)
    left = diffusers.DEISMultistepScheduler(prediction_type=FLOW, use_flow_sigmas=True)
    left.set_timesteps(4)
    assert left.sigmas[-1].item() == pytest.approx(number("diffusers.deis.flow_end"))
    fields = {"use_flow_sigmas": True, "prediction_type": FLOW}
    plan = resolve(config={"_class_name": "DEISMultistepScheduler", **fields}).plan(4)
    assert plan.sigmas[-1] == 0


def flow_end(name, steps, spacing="simple", **config):
    """(the end of a run from pure noise in the world of a mixture, the exact one)."""
    entry = next(entry for entry in TABLE if entry.name == name)
    eta = None if entry.eta is None else 0.0
    scheduler = resolve(name, spacing, eta, {**EULER, **config})
    plan, world = scheduler.plan(steps), Mixture()
    x = NOISE.start().double() * plan.start_scale
    denoise = denoiser(world, process=RectifiedFlow(plan), batch=2)
    *_, last = sample(denoise, x, plan.sigmas, scheduler.solver, NOISE)
    return last.x_next, world.flow(x, plan.sigmas[0], 1e-6)


# Where sigma falls from a million, no polynomial in it is any good; in s they are.
OVER_S = ("heun", "dpm2", "lms", "pndm", "ipndm", "pndm_prk", "belm", "heun_churn", "midpoint",
          "ralston", "kutta3", "rk4", "dopri5", "euler_ge")  # fmt: skip


@pytest.mark.parametrize("name", OVER_S)
def test_a_solver_over_s_in_a_world_of_flow(name):
    few, exact = flow_end(name, 10)
    many, _ = flow_end(name, 40)
    error = (few - exact).abs().max().item()
    assert error < 0.25
    assert (many - exact).abs().max().item() < error / 3


def test_over_sigma_it_is_of_no_use():
    """What the variable is for: the same Heun, told to stay in sigma."""
    scheduler = resolve("heun:variable=sigma", "simple", None, EULER)
    plan, world = scheduler.plan(10), Mixture()
    x = NOISE.start().double() * plan.start_scale
    denoise = denoiser(world, process=RectifiedFlow(plan), batch=2)
    *_, last = sample(denoise, x, plan.sigmas, scheduler.solver, NOISE)
    exact = world.flow(x, plan.sigmas[0], 1e-6)
    assert (last.x_next - exact).abs().max().item() > 10
    ours, _ = flow_end("heun", 10)
    assert (ours - exact).abs().max().item() < 0.1


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_every_solver_ends_at_the_picture(entry):
    """In the world of one picture, whatever the noise is."""
    picture = torch.full((4, 8, 8), 0.4, dtype=torch.float64)
    scheduler = resolve(entry.name, "simple", config=EULER)
    plan = scheduler.plan(12)
    denoise = denoiser(point(picture), process=RectifiedFlow(plan), batch=2)
    x = NOISE.start().double() * plan.start_scale
    *_, last = sample(denoise, x, plan.sigmas, scheduler.solver, NOISE)
    limit = 1e-3 if entry.keeps_some_x else 1e-6
    assert (last.x_next - picture).abs().max() < limit


def test_euler_over_s_is_euler():
    """It is the same step in either variable, of which heun's last one is one."""
    ours, _ = flow_end("euler", 12)
    scheduler = resolve("euler", "simple", 0.0, EULER)
    plan = scheduler.plan(12)
    y, denoise = NOISE.start().double(), denoiser(Mixture(), process=RectifiedFlow(plan), batch=2)
    for sigma, following in pairwise(plan.sigmas):
        said = denoise(y * (1 + sigma), sigma)
        y = y + (to_s(following) - to_s(sigma)) * (said.eps - said.x0)
    torch.testing.assert_close(ours, y, rtol=0, atol=1e-9)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ancestral_noise_is_that_of_rectified_flow(eta):
    """One step as ComfyUI's sample_euler_ancestral_RF writes it, in s."""
    scheduler = resolve("euler_a", "simple", eta, EULER)
    plan = scheduler.plan(8)
    drawn = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    process = RectifiedFlow(plan)
    denoise = Denoiser(wavy, process, {"cond": {}}, CFG(1))
    for i in range(7):
        s, s_next = to_s(plan.sigmas[i]), to_s(plan.sigmas[i + 1])
        y = NOISE.start().double()
        steps = sample(denoise, State(y / (1 - s), i), plan.sigmas, scheduler.solver,
                       lambda *_: drawn)  # fmt: skip
        x_next = next(iter(steps)).x_next * (1 - s_next)
        x0 = y - s * wavy(y, 1000 * s if i else 1000)
        s_down = s_next * (1 + (s_next / s - 1) * eta)
        renoise = (s_next**2 - s_down**2 * (1 - s_next) ** 2 / (1 - s_down) ** 2) ** 0.5
        expected = s_down / s * y + (1 - s_down / s) * x0
        expected = (1 - s_next) / (1 - s_down) * expected + renoise * drawn
        torch.testing.assert_close(x_next, expected, rtol=0, atol=1e-5)


def test_stochastic_sampling_draws_all_noise_anew():
    scheduler = resolve(config={**EULER, "stochastic_sampling": True})
    plan = scheduler.plan(6)
    denoise = denoiser(Mixture(), process=RectifiedFlow(plan), batch=2)
    x = NOISE.start().double() * plan.start_scale
    for step in sample(denoise, x, plan.sigmas, scheduler.solver, NOISE):
        if step.sigma_next == 0:
            break
        expected = step.prediction.x0 + step.sigma_next * step.drawn[0]()
        torch.testing.assert_close(step.x_next, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("shift", ["", ":shift=3", ":mu=1.1,terminal=0.05"])
def test_every_spacing_falls_from_noise(name, shift):
    plan = resolve("euler", name + shift, config=EULER).plan(9)
    assert len(plan.sigmas) == 10
    assert all(after < sigma for sigma, after in pairwise(plan.sigmas))
    assert plan.sigmas[-1] == 0
    assert plan.start_scale == 1 + plan.sigmas[0]
    for sigma, t in zip(plan.sigmas[1:], plan.timesteps[1:], strict=False):
        assert t == pytest.approx(1000 * to_s(sigma), rel=1e-9)
    if "terminal" in shift and name in ("linspace", "simple", "leading", "trailing"):
        assert plan.timesteps[-1] == pytest.approx(50)


def test_linear_quadratic_as_comfyui_writes_it():
    steps, threshold = 10, 0.025
    linear = steps // 2
    rest = steps - linear
    off = linear - threshold * steps
    bend = off / (linear * rest**2)
    slope = threshold / linear - 2 * off / rest**2
    done = [i * threshold / linear for i in range(linear)]
    done += [bend * i**2 + slope * i + bend * linear**2 for i in range(linear, steps)]
    expected = [1 - each for each in done]
    times = resolve("euler", "linear_quadratic", config=EULER).plan(steps).timesteps
    assert [t / 1000 for t in times] == pytest.approx(expected)


def test_the_sizes_mu_is_fluxs():
    assert mu_of(256) == pytest.approx(0.5)
    assert mu_of(1024) == pytest.approx(0.63)


@pytest.mark.parametrize(
    ("config", "spacing", "says"),
    [
        ({**EULER, "use_dynamic_shifting": True}, None, "simple:mu=1.15"),
        ({**EULER, "invert_sigmas": True}, None, "1 - s"),
        ({**EULER, "shift": -1.0}, None, "above 0"),
        ({**EULER, "shift": "3"}, None, "cannot be that"),
        ({**EULER, "num_train_timesteps": 1}, None, "2 to 100000"),
        (EULER, "ays", "a flow has linspace"),
        (EULER, "simple:shift=0", "shift"),
        (EULER, "simple:shift=2,mu=1", "give one"),
        (EULER, "simple:bend=2", "no option"),
        ({}, "simple:shift=3", "flow"),
        ({"_class_name": "FlowMatchLCMScheduler"}, None, "consistency"),
        ({"use_flow_sigmas": True, "prediction_type": "epsilon"}, None, "straight path"),
    ],
)
def test_what_a_flow_cannot_be_is_one_line(config, spacing, says):
    with pytest.raises(InputError) as caught:
        resolve("euler" if config in ({}, EULER) else None, spacing, config=config).plan(4)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
