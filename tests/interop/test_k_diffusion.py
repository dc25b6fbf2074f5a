"""Functions of k-diffusion's form: ours as such, and such as solvers of ours."""

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scripts.k_diffusion import samplers
from scripts.trajectories import apart
from sdcore.errors import InputError
from sdcore.interop import as_k_diffusion, from_k_diffusion
from sdcore.lab.laws import LAWS
from sdcore.lab.setting import SINGLE, Setting
from sdcore.lab.worlds import Mixture, denoiser
from sdcore.noise import SeededNoise
from sdcore.process import RectifiedFlow
from sdcore.sampling import sample
from sdcore.schedulers import resolve
from sdcore.schedulers.flow_schedule import to_sigma

NOISE = SeededNoise((4, 5), (4, 8, 8))
SIGMAS = torch.tensor(resolve("euler", "karras").plan(8).sigmas)
WORLD = Mixture()
LIMIT = 1e-5
NAMES = ("euler", "heun", "dpm_2", "lms", "dpmpp_2m")
DRAWING = ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_2m_sde",
           "dpmpp_3m_sde", "dpmpp_sde")  # fmt: skip


@pytest.fixture(scope="module")
def kd():
    try:
        return samplers()
    except ImportError as error:
        pytest.skip(str(error))


def model(x, sigma, **extra):
    """k-diffusion's kind of a model: x0 of a mixture."""
    assert sigma.shape == (len(x),)
    return WORLD(x, float(sigma[0])).x0


def start():
    return NOISE.start() * SIGMAS[0]


def drawing():
    """A noise_sampler that gives the loop's draws."""
    numbers = iter(range(1000))
    return lambda sigma, sigma_next: NOISE(next(numbers), float(sigma), float(sigma_next))


def called(function, **how):
    if "noise_sampler" in inspect.signature(function).parameters:
        how = {"noise_sampler": drawing(), **how}
    return function(model, start(), SIGMAS, disable=True, **how)


@pytest.mark.parametrize("name", [*NAMES, *DRAWING])
def test_ours_is_theirs(kd, name):
    theirs = called(getattr(kd, f"sample_{name}"))
    ours = called(as_k_diffusion(f"sample_{name}"))
    assert apart(ours, theirs) < LIMIT


@pytest.mark.parametrize("name", [*NAMES, *DRAWING])
def test_theirs_in_our_loop(kd, name):
    function = getattr(kd, f"sample_{name}")
    solver = from_k_diffusion(function)
    sigmas = SIGMAS.tolist()
    *_, last = sample(WORLD, start(), sigmas, solver, NOISE)
    assert apart(last.x_next, called(function)) < LIMIT


def renewed(model, x, sigmas, disable=None):
    """All noise drawn anew, by torch.randn_like."""
    for i in range(len(sigmas) - 1):
        x0 = model(x, sigmas[i].expand(len(x)))
        x = x0 + sigmas[i + 1] * torch.randn_like(x) if sigmas[i + 1] > 0 else x0
    return x


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", ["euler", "renewed", "lms", "dpmpp_2m", "dpmpp_3m_sde"])
def test_such_a_function_becomes_a_pure_one(kd, name, law):
    solver = from_k_diffusion(renewed if name == "renewed" else getattr(kd, f"sample_{name}"))
    for begin in (0, 3):
        setting = Setting(resolve("euler", "karras").plan(6).sigmas, begin, unit=SINGLE)
        assert law(solver, setting) is None


def test_what_is_changed_between_steps_is_gone_on_from(kd):
    solver = from_k_diffusion(kd.sample_dpmpp_2m)
    steps = sample(WORLD, start(), SIGMAS.tolist(), solver, NOISE)
    for step in steps:
        if step.index == 3:
            step.x_next = step.x_next * 0.5
            changed = step.x_next
        if step.index == 4:
            fresh = kd.sample_dpmpp_2m(model, changed, SIGMAS[4:6], disable=True)
            assert apart(step.x_next, fresh) < LIMIT
            break


def test_nothing_is_asked_twice_and_drawn_for_nothing(kd):
    steps = [*sample(WORLD, start(), SIGMAS.tolist(), from_k_diffusion(kd.sample_heun), NOISE)]
    assert steps[-1].draws == 0
    assert [step.nfe for step in steps] == [2] * 7 + [1]
    steps = [*sample(WORLD, start(), SIGMAS.tolist(), from_k_diffusion(renewed), NOISE)]
    assert [step.draws for step in steps] == [1, 2, 3, 4, 5, 6, 7, 7]
    assert [step.nfe for step in steps] == [1] * 8


def test_noise_of_a_path_is_known_by_the_function(kd):
    assert resolve(from_k_diffusion(kd.sample_dpmpp_sde)).entry.noise == "brownian"
    assert resolve(from_k_diffusion(kd.sample_euler_ancestral)).entry.noise == "independent"


def draw_elsewhere(like):
    return torch.randn(like.shape)


def draws_elsewhere(model, x, sigmas, disable=None):
    for i in range(len(sigmas) - 1):
        x = model(x, sigmas[i].expand(len(x))) + sigmas[i + 1] * draw_elsewhere(x)
    return x


def test_noise_that_is_not_the_loops_is_refused():
    with pytest.raises(InputError, match="not the loop's"):
        list(sample(WORLD, start(), SIGMAS.tolist(), from_k_diffusion(draws_elsewhere), NOISE))


def test_options_and_callback():
    seen = []
    same = called(as_k_diffusion("heun_churn"), s_churn=0.0, callback=seen.append)
    assert apart(same, called(as_k_diffusion("heun"))) < LIMIT
    assert [each["i"] for each in seen] == list(range(8))
    assert {*seen[0]} == {"x", "i", "sigma", "sigma_hat", "denoised"}
    assert torch.equal(seen[0]["denoised"], model(start(), SIGMAS[:1].expand(2)))
    with pytest.raises(InputError, match="no option"):
        called(as_k_diffusion("heun"), s_chrun=1.0)


def comfyui(kind="EPS"):
    """As much of ComfyUI's model as a sampler of its own looks at."""
    process = RectifiedFlow()
    world = denoiser(WORLD, process=process, batch=2)

    class Model:
        def __init__(self) -> None:
            sampling = type(kind, (type("ModelSampling", (), {}),), {})()
            patcher = SimpleNamespace(get_model_object=lambda name: sampling)
            self.inner_model = SimpleNamespace(model_patcher=patcher)

        def __call__(self, x, sigma, model_options, seed):
            if kind != "CONST":
                return model(x, sigma)
            at = to_sigma(float(sigma[0]))
            return world(x * process.spread(at), at).x0

    return Model()


EXTRA = {"model_options": {}, "seed": 4}


def test_as_comfyui_calls_it():
    """seed says the noise; the same picture comes twice, and again of the solver in our loop."""
    function = as_k_diffusion("euler_ancestral")
    ends = [function(comfyui(), start(), SIGMAS, extra_args=EXTRA, disable=True) for _ in range(2)]
    assert torch.equal(*ends)
    *_, last = sample(WORLD, start(), SIGMAS.tolist(), resolve("euler_a").solver, NOISE)
    assert apart(ends[0], last.x_next) < LIMIT


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "euler_ancestral"])
def test_along_a_flow_as_comfyui_calls_it(name):
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    scheduler = resolve(name, "simple", config=config)
    plan, process = scheduler.plan(8), RectifiedFlow()
    levels = torch.tensor([1 - i / 8 for i in range(9)])
    x = NOISE.start()
    ours = as_k_diffusion(name)(comfyui("CONST"), x, levels, extra_args=EXTRA, disable=True)
    world = denoiser(WORLD, process=process, batch=2)
    *_, last = sample(world, x * plan.start_scale, plan.sigmas, scheduler.solver, NOISE)
    assert apart(ours, last.x_next) < LIMIT


def test_without_a_seed_torchs_generator_counts():
    function = as_k_diffusion("euler_ancestral")
    ends = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            ends.append(function(model, start(), SIGMAS, disable=True))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def churns(model, x, sigmas, s_churn=0.0):
    return x


def asks_more(model, x, sigmas, disable=None):
    return x * model.inner_model.scale


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: from_k_diffusion(lambda model, x, sigma_min, sigma_max, n: x), "sigma_min"),
        (lambda: from_k_diffusion(max), "not \\(model"),
        (lambda: as_k_diffusion("eulr"), "did you mean"),
        (lambda: from_k_diffusion(churns, s_churn=3.0), "take ours, euler_churn"),
        (
            lambda: next(sample(WORLD, start(), SIGMAS.tolist(), from_k_diffusion(asks_more))),
            "asks_more asks more of its model",
        ),
    ],
)
def test_what_cannot_be_is_one_line(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_it_goes_by_its_name():
    def sample_mine(model, x, sigmas, disable=None):
        for i in range(len(sigmas) - 1):
            x0 = model(x, sigmas[i].expand(len(x)))
            x = x0 + sigmas[i + 1] / sigmas[i] * (x - x0)
        return x

    scheduler = resolve(from_k_diffusion(sample_mine), "karras")
    assert scheduler.name == "sample_mine"
    *_, last = sample(WORLD, start(), SIGMAS.tolist(), scheduler.solver)
    *_, same = sample(WORLD, start(), SIGMAS.tolist(), resolve("euler").solver)
    assert apart(last.x_next, same.x_next) < LIMIT


def test_the_examples_of_with_other_tools_md(kd):
    page = (Path(__file__).parents[2] / "docs" / "with-other-tools.md").read_text()
    example = re.findall(r"```python\n(.*?)```", page, re.S)[2]
    world = SimpleNamespace(prepare=lambda text, scheduler, **_: resolve(scheduler, "karras"))
    names = {"model": lambda x, sigma, **_: model(x, sigma), "x": start(), "sigmas": SIGMAS,
             "sample_lms": kd.sample_lms, "sd": world}  # fmt: skip
    exec(compile(example, "with-other-tools.md", "exec"), names)
    assert apart(names["samples"], called(kd.sample_dpmpp_2m)) < LIMIT
    assert names["run"].name == "sample_lms"
