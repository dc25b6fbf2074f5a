"""Our solvers as schedulers of diffusers' pipelines: whole runs equal to those of our own loop."""

import re
from pathlib import Path

import diffusers
import pytest
import torch

from scripts.adapters import both
from scripts.small_pipelines import FLOW, PIPELINES, SEEDS, sd
from scripts.trajectories import SHAPE, apart, our_latents, wavy
from sdcore.adapters import as_diffusers
from sdcore.errors import InputError
from sdcore.noise import SeededNoise
from sdcore.schedulers import TABLE, resolve
from sdcore.schedulers.config import SD15

NOISE = SeededNoise(SEEDS, SHAPE)
LIMIT = 1e-5
# Of Brownian noise, in the pipelines.
RUN_THERE = [e.name for e in TABLE
             if not e.adaptive and not e.raises_first and e.noise == "independent"]  # fmt: skip


def loop(scheduler, steps=6, network=wavy, start=0, x0=None, dtype=torch.float32, change=None):
    """What every pipeline does with its scheduler."""
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    noise = torch.cat([torch.randn(1, *SHAPE, generator=each) for each in generators])
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps[start * scheduler.order :]
    if x0 is None:
        x = noise.to(dtype) * scheduler.init_noise_sigma
    else:
        scheduler.set_begin_index(start * scheduler.order)
        x = scheduler.add_noise(x0, noise, times[:1].expand(2))
    for t in times:
        said = network(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(said, t, x, generator=generators, return_dict=False)[0]
        x = x if change is None else change(x)
    return x


@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "euler_a"])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_whole_runs_of_a_pipeline(pipeline, solver):
    with torch.inference_mode():
        theirs, ours = both(pipeline, solver, 4)
    assert theirs.isfinite().all()
    assert apart(ours, theirs) < LIMIT


@pytest.mark.parametrize("name", RUN_THERE)
def test_every_solver_over_a_stand_in_network(name):
    """In float64: of a rounding error Verner's methods make 1e-2 in so few steps."""
    ours = resolve(name, config=SD15, corrected=False)

    def network(x, t, context):
        return wavy(x, torch.tensor(t, dtype=torch.float32))  # as a pipeline tells it

    x = NOISE.start().double() * ours.plan(6).start_scale
    theirs = loop(as_diffusers(name, SD15), dtype=torch.float64)
    assert apart(theirs, our_latents(ours, 6, model=network, seeds=SEEDS, x=x)) < LIMIT


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "rk4", "euler_a"])
def test_image_to_image_begins_in_the_middle(name):
    x0 = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(5))
    ours = resolve(name, config=SD15, corrected=False)
    x = x0 + NOISE.start() * ours.plan(6).sigmas[2]
    expected = our_latents(ours, 6, seeds=SEEDS, start=2, x=x)
    assert apart(loop(as_diffusers(name, SD15), start=2, x0=x0), expected) < LIMIT


def test_it_begins_where_it_is_first_asked_if_nobody_said():
    scheduler = as_diffusers("heun", SD15)
    scheduler.set_timesteps(6)
    x = torch.ones(2, *SHAPE)
    begun = scheduler.step(x, scheduler.timesteps[4], x).prev_sample
    assert (scheduler.begin_index, scheduler.step_index) == (4, 5)
    other = as_diffusers("heun", SD15)
    other.set_timesteps(6)
    other.set_begin_index(4)
    assert torch.equal(begun, other.step(x, 0, x).prev_sample)


def test_what_a_config_left_to_its_class_is_not_taken_over():
    """PNDM's own default is `leading`; Euler of the same file lays linspace, in diffusers too."""
    config = diffusers.PNDMScheduler.from_config(SD15).config
    theirs = diffusers.EulerDiscreteScheduler.from_config(config)
    theirs.set_timesteps(6)
    ours = as_diffusers("euler", config)
    ours.set_timesteps(6)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps, rtol=0, atol=1e-3)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-6, atol=0)
    assert as_diffusers(None, config).config.timestep_spacing == "leading"
    back = diffusers.DDIMScheduler.from_config(ours.config)  # and the config is still the file's
    assert back.config.steps_offset == 1


def test_an_object_says_its_class_where_a_bare_config_does_not():
    """diffusers writes a class's name into a config only where it was read from a file."""
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert as_diffusers("heun", flow).timesteps[1] == as_diffusers("heun", FLOW).timesteps[1]
    with pytest.raises(InputError, match="give the scheduler object"):
        as_diffusers("heun", flow.config)


def test_a_saved_pipeline_comes_back_with_its_own_scheduler(tmp_path):
    pipe = sd().pipe
    pipe.scheduler = as_diffusers("dpmpp_2m", pipe.scheduler)
    pipe.save_pretrained(tmp_path)
    absent = ("safety_checker", "feature_extractor", "text_encoder", "tokenizer")
    back = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, **dict.fromkeys(absent))
    assert type(back.scheduler).__name__ == "DDIMScheduler"
    assert back.scheduler.config.steps_offset == 1


def test_in_half_precision_the_state_stays_in_float32():
    config = {**SD15, "timestep_spacing": "linspace"}
    exact = loop(as_diffusers("euler", config, tail="zero"), 30)
    half = loop(as_diffusers("euler", config, tail="zero"), 30, dtype=torch.float16)
    theirs = diffusers.EulerDiscreteScheduler.from_config(config)
    theirs_half = loop(theirs, 30, dtype=torch.float16)
    assert half.dtype == torch.float16
    off, their_off = (apart(each.float(), exact) for each in (half, theirs_half))
    assert off < their_off


def test_a_callback_changes_x():
    scheduler = as_diffusers("dpmpp_2m", SD15)
    plain = loop(as_diffusers("dpmpp_2m", SD15))
    changed = loop(scheduler, change=lambda x: x.clone().clamp_(-1, 1))
    assert not torch.equal(plain, changed)
    assert changed.abs().max() <= 1
    in_place = loop(scheduler, change=lambda x: x.clamp_(-1, 1))
    assert torch.equal(in_place, changed)


def test_a_step_before_the_schedule_is_laid_is_refused():
    """In one line, as it is by diffusers' own; what a pipeline reads before it begins is there."""
    scheduler = as_diffusers("heun", SD15)
    assert (scheduler.order, scheduler.num_inference_steps) == (2, None)
    with pytest.raises(InputError, match=r"call set_timesteps\(N\) before"):
        scheduler.step(torch.zeros(1, 4, 2, 2), 0, torch.zeros(1, 4, 2, 2))


def test_given_sigmas_and_timesteps():
    scheduler = as_diffusers("euler", SD15)
    scheduler.set_timesteps(sigmas=[14.0, 3.0, 1.0, 0.0])
    assert scheduler.sigmas.tolist() == [14.0, 3.0, 1.0, 0.0]
    scheduler.set_timesteps(timesteps=[999, 500, 250])
    assert scheduler.timesteps.tolist() == [999, 500, 250]
    assert scheduler.num_inference_steps == 3


def test_along_a_flow_given_levels_are_shifted_once():
    """As FlowMatchEuler does with those of a pipeline; a spacing of one's own goes first."""
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    ours = as_diffusers("euler", FLOW)
    ours.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    torch.testing.assert_close(ours.timesteps.float(), theirs.timesteps, rtol=1e-6, atol=0)
    own = as_diffusers("euler", FLOW, spacing="karras")
    own.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    karras = resolve("euler", "karras", config=FLOW).plan(4).timesteps
    assert own.timesteps.tolist() == pytest.approx(karras)
    noised = ours.scale_noise(torch.ones(2, 4), ours.timesteps[1], torch.zeros(2, 4))
    assert noised[0, 0].item() == pytest.approx(1 - theirs.sigmas[1].item())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: as_diffusers("dpm_adaptive", SD15), "has to know before"),
        (lambda: as_diffusers("bosh3:rtol=0.05", SD15), "has to know before"),
        (lambda: as_diffusers("euler", None), "pipe.scheduler.config"),
        (lambda: as_diffusers("heun_churn", SD15), "raises sigma before it asks"),
        (lambda: as_diffusers("eulr", SD15), "did you mean"),
        (lambda: as_diffusers("heun", SD15).set_begin_index(1), "inside of a step"),
        (lambda: as_diffusers("pndm", SD15).set_begin_index(2), "more often in its first step"),
        (lambda: as_diffusers("euler", SD15).set_timesteps(), "how many steps"),
        (lambda: as_diffusers("euler", SD15).set_timesteps(timesteps=[9], sigmas=[9]), "not both"),
        (
            lambda: as_diffusers("euler", SD15, "karras").set_timesteps(timesteps=[9]),
            "its own spacing",
        ),
        (
            lambda: as_diffusers("euler", {**FLOW, "use_dynamic_shifting": True}).set_timesteps(4),
            "give it mu",
        ),
        (lambda: loop(as_diffusers("dpmpp_sde", SD15, seeds=[1])), "1 seeds, and 2 pictures"),
    ],
)
def test_what_a_pipeline_cannot_run_is_one_line(call, says):
    with pytest.raises(InputError) as caught:
        call()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_after_the_last_step_there_is_none():
    scheduler = as_diffusers("euler", SD15)
    x = loop(scheduler)
    with pytest.raises(InputError, match="has ended"):
        scheduler.step(x, 1, x)


def test_a_solver_of_ones_own_that_asks_by_what_it_sees_is_refused():
    def fickle(denoise, x, interval, memory, draw):
        prediction = denoise(x, interval.sigma)
        if prediction.x0.abs().sum() > 0:
            prediction = denoise(x, interval.sigma / 2)
        return x + (interval.sigma_next - interval.sigma) * prediction.eps, prediction, ()

    with pytest.raises(InputError, match="otherwise than"):
        loop(as_diffusers(fickle, SD15))


def test_without_diffusers_it_is_one_line(monkeypatch):
    monkeypatch.setattr("sdcore.interop.diffusers.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install diffusers"):
        as_diffusers("euler", SD15)


def test_the_example_of_with_other_tools_md():
    page = (Path(__file__).parents[2] / "docs" / "with-other-tools.md").read_text()
    example = re.findall(r"```python\n(.*?)```", page, re.S)[0]
    small = sd()
    call = {**small.call, "output_type": "latent"}

    class Pipe:
        scheduler = small.pipe.scheduler

        def __call__(self, prompt, **how):
            small.pipe.scheduler = self.scheduler
            return small.pipe(**call, **{**how, "num_inference_steps": 3})

    names = {"pipe": Pipe()}
    exec(compile(example, "with-other-tools.md", "exec"), names)
    assert names["image"].shape == (4, 8, 8)
    assert len(small.pipe.scheduler.timesteps) == 3
