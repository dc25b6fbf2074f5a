"""diffusers' scheduler objects inside our loop: whole runs equal to diffusers' own loop."""

import copy
import re
import sys
from dataclasses import replace
from inspect import signature
from pathlib import Path

import diffusers
import pytest
import torch

from scripts.trajectories import SD, SEEDS, SHAPE, apart, our_steps, wavy
from sdcore.denoiser import Denoiser
from sdcore.errors import InputError
from sdcore.experiments.cells import Cell, Studio
from sdcore.guidance import CFG
from sdcore.interop import as_diffusers, from_diffusers
from sdcore.lab import check
from sdcore.lab.laws import LAWS
from sdcore.lab.setting import SINGLE, Setting
from sdcore.loading import load
from sdcore.noise import SeededNoise
from sdcore.process import process_of
from sdcore.sampling import sample
from sdcore.schedulers import Scheduler, resolve

NOISE = SeededNoise(SEEDS, SHAPE)
LIMIT = 1e-5
TABLE = ["DDIM", "DDPM", "PNDM", "LCM", "TCD"]
BY_SIGMA = ["EulerDiscrete", "EulerAncestralDiscrete", "LMSDiscrete", "DPMSolverMultistep",
            "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep", "SASolver"]  # fmt: skip
TWICE = ["HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete"]
FLOWS = ["FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM"]


def made(name, **fields):
    kind = getattr(diffusers, f"{name}Scheduler")
    return kind(**fields) if name in FLOWS else kind.from_config({**SD, **fields})


def theirs(scheduler, steps):
    """diffusers' own loop."""
    scheduler = copy.deepcopy(scheduler)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    x = torch.cat([torch.randn(1, *SHAPE, generator=each) for each in generators])
    scheduler.set_timesteps(steps)
    x = x * getattr(scheduler, "init_noise_sigma", 1.0)
    draws = {"generator": generators} if "generator" in signature(scheduler.step).parameters else {}
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(wavy(seen, t), t, x, return_dict=False, **draws)[0]
    return x


def ours(scheduler, steps):
    plan = scheduler.plan(steps)
    process = process_of(scheduler.prediction_type, plan)
    denoise = Denoiser(wavy, process, {"cond": {}}, CFG(1))
    x = NOISE.start() * plan.start_scale
    *_, last = sample(denoise, x, plan.sigmas, scheduler.solver, NOISE)
    return last.x_next * plan.end_scale


@pytest.fixture(scope="module")
def model(tiny_path):
    return load(tiny_path, device="cpu")


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("name", [*TABLE, *BY_SIGMA, *TWICE, *FLOWS])
def test_whole_runs(name, steps):
    scheduler = made(name)
    if steps == 1 and name == "FlowMatchHeunDiscrete":
        steps = 2  # diffusers lays no single one
    assert apart(ours(from_diffusers(scheduler), steps), theirs(scheduler, steps)) < LIMIT
    assert not hasattr(scheduler, "ets") or not scheduler.ets  # the object itself is left alone


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("DPMSolverMultistep", {"use_karras_sigmas": True, "solver_order": 3}),
        ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}),
        ("EulerDiscrete", {"timestep_spacing": "leading", "prediction_type": "v_prediction"}),
        ("UniPCMultistep", {"solver_order": 3, "timestep_spacing": "trailing"}),
        ("DDIM", {"clip_sample": True}),
        ("FlowMatchEulerDiscrete", {"shift": 3.0, "use_karras_sigmas": True}),
        ("FlowMatchEulerDiscrete", {"stochastic_sampling": True}),
    ],
)
def test_fields_of_the_object_count(name, fields):
    scheduler = made(name, **fields)
    assert apart(ours(from_diffusers(scheduler), 20), theirs(scheduler, 20)) < LIMIT


def test_dpm_solver_sde_draws_our_brownian_path():
    """Its own is torchsde's tree; on ours it is the solver of the same name."""
    scheduler = from_diffusers(made("DPMSolverSDE"))
    assert scheduler.entry.noise == "brownian"
    alone, _ = our_steps(resolve("dpmpp_sde"), 7)
    assert apart(ours(scheduler, 7), alone[-1].x_next) < LIMIT


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", ["DPMSolverMultistep", "UniPCMultistep", "PNDM", "HeunDiscrete"])
def test_an_object_that_remembers_becomes_a_pure_function(name, law):
    scheduler = from_diffusers(made(name))
    for start in (0, 3):
        setting = Setting(scheduler.plan(8).sigmas, start, unit=SINGLE)
        assert law(scheduler.solver, setting) is None


def test_a_class_that_reads_its_sigmas_runs_over_any():
    karras = resolve("euler", "karras").plan(9)
    solver = from_diffusers(made("DPMSolverMultistep")).solver
    denoise = Denoiser(lambda x, t, **_: wavy(x, t), process_of("epsilon", karras), {"cond": {}},
                       CFG(1))  # fmt: skip
    *_, last = sample(denoise, NOISE.start(), karras.sigmas, solver, NOISE)
    own = resolve("dpmpp_2m").solver
    *_, same = sample(denoise, NOISE.start(), karras.sigmas, own, NOISE)
    assert apart(last.x_next, same.x_next) < LIMIT
    with pytest.raises(InputError, match="grid that it lays itself"):
        next(sample(denoise, NOISE.start(), karras.sigmas, from_diffusers(made("DDIM")).solver))
    with pytest.raises(InputError, match="does not step to sigma 0"):
        next(sample(denoise, NOISE.start(), karras.sigmas, from_diffusers(made("SASolver")).solver))


def test_check_tells_what_diffusers_gets_wrong(monkeypatch):
    """Its DDIM steps past the next timestep of linspace; on leading every law holds."""
    module = sys.modules["sdcore.lab.check"]
    for counts in ("FEW", "SOME", "EVERY"):
        monkeypatch.setattr(module, counts, (1, 2, 9))
    right = check(from_diffusers(made("DDIM", timestep_spacing="leading")), float32=True)
    assert right.holds, right.findings
    wrong = check(from_diffusers(made("DDIM", timestep_spacing="linspace")), float32=True)
    broken = {finding.law for finding in wrong.findings if not finding.holds}
    assert "exact for constant eps" in broken


def test_prepare_takes_an_object(model):
    scheduler = diffusers.DPMSolverMultistepScheduler.from_config(model.scheduler_config)
    how = {"seeds": [1], "steps": 3, "width": 64, "height": 64}
    ends = []
    for chosen in (scheduler, from_diffusers(scheduler), "DPMSolverMultistepScheduler"):
        run = model.prepare("red", scheduler=chosen, **how)
        with torch.inference_mode():
            *_, last = run
        ends.append(last.x_next)
    assert torch.equal(ends[0], ends[1])
    assert apart(ends[0], ends[2]) < 1e-4
    said = model.prepare("red", scheduler=scheduler, **how).settings[0]
    assert said.scheduler == "DPMSolverMultistepScheduler (in memory)"


def test_an_object_in_a_comparison(tiny_path):
    """What `sdcore compare` draws its cells with."""
    scheduler = from_diffusers(made("EulerDiscrete"))
    options = {"model": str(tiny_path), "steps": 2, "width": 64, "height": 64, "device": "cpu"}
    cells = [Cell("red", 0, {**options, "scheduler": each}) for each in (scheduler, "euler")]
    with torch.inference_mode():
        one, other = (Studio().draw([cell])[0] for cell in cells)
    assert one.settings.scheduler == "EulerDiscreteScheduler (in memory)"
    assert one.latents.shape == other.latents.shape


def test_from_a_file_for_the_command_line(tmp_path):
    file = tmp_path / "unipc.py"
    file.write_text(
        "import diffusers\n"
        "from sdcore.interop import from_diffusers\n"
        "from sdcore.schedulers.config import SD15\n"
        "solver = from_diffusers(diffusers.UniPCMultistepScheduler.from_config(SD15)).solver\n"
    )
    done, _ = our_steps(resolve(str(file), "karras"), 6)
    assert done[-1].x_next.isfinite().all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: diffusers.EDMEulerScheduler(), "continuous sigmas"),
        (lambda: diffusers.VQDiffusionScheduler(8), "discrete tokens"),
        (lambda: made("PNDM", skip_prk_steps=False), "pndm_prk"),
        (lambda: made("FlowMatchEulerDiscrete", use_dynamic_shifting=True), "lays no 2 steps"),
        (lambda: 3, "no scheduler of diffusers' kind"),
        (lambda: diffusers.EulerDiscreteScheduler, "is a class: make one"),
        (lambda: as_diffusers("euler", SD), "something else"),
    ],
)
def test_what_cannot_run_here_is_one_line(make, says):
    with pytest.raises(InputError) as caught:
        from_diffusers(make())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"spacing": "karras"}, "brings its own spacing"),
        ({"eta": 1.0}, "brings its own eta"),
        ({"tail": "zero"}, "brings its own tail"),
        ({"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}, "made for flow_prediction"),
    ],
)
def test_a_complete_scheduler_stays_what_it_is(model, options, says):
    asked = {"scheduler": made("EulerDiscrete"), "steps": 2, **options}
    with pytest.raises(InputError, match=says):
        model.prepare("red", **asked)


def test_resolve_takes_a_scheduler_of_ours():
    scheduler = resolve("heun", "karras")
    assert resolve(scheduler) is scheduler
    other = replace(scheduler, name="mine")
    assert isinstance(resolve(other), Scheduler)
    assert resolve(other).name == "mine"


def test_a_shift_of_the_pictures_size_is_told():
    scheduler = made("FlowMatchEulerDiscrete", use_dynamic_shifting=True)
    plan = from_diffusers(scheduler, mu=0.9).plan(4)
    scheduler.set_timesteps(4, mu=0.9)
    assert plan.timesteps == pytest.approx(scheduler.timesteps.tolist(), rel=1e-6)


def test_the_example_of_with_other_tools_md(model, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "with-other-tools.md").read_text()
    example = re.findall(r"```python\n(.*?)```", page, re.S)[1]
    module = sys.modules["sdcore.lab.check"]
    for counts in ("FEW", "SOME", "EVERY"):
        monkeypatch.setattr(module, counts, (1, 2))
    small = {"width": 64, "height": 64}
    prepare = model.prepare
    monkeypatch.setattr(type(model), "prepare", lambda self, *a, **k: prepare(*a, **{**k, **small}))
    names = {"sd": model}
    with torch.inference_mode():
        exec(compile(example.split("report")[0], "with-other-tools.md", "exec"), names)
    assert len(names["run"]) == 20
    exec(compile("report" + example.split("report")[1], "with-other-tools.md", "exec"), names)
    assert {finding.law for finding in names["report"].findings} >= set(LAWS)
