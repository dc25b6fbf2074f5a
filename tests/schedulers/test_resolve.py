"""Names, configs and what is refused."""

import json

import pytest
import torch

from scripts.trajectories import CLASS_OF, SD, diffusers_scheduler, our_latents
from sdcore.errors import InputError
from sdcore.lab import Gaussian
from sdcore.sampling import sample
from sdcore.schedulers import TABLE, Scheduler, load_solver, resolve
from sdcore.schedulers.config import SD15

gaussian = Gaussian(0.3, 0.5)
SDXL = {
    **SD,
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
DDIM = {**SD, "_class_name": "DDIMScheduler"}
SD21 = {**SD, "_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}


@pytest.mark.parametrize(
    ("name", "short", "spacing"),
    [
        ("ddim", "ddim", "leading"),
        ("DDIM", "ddim", "leading"),  # A1111's timestep samplers run diffusers' leading
        ("PLMS", "pndm", "leading"),
        ("euler_ancestral", "euler_a", "linspace"),
        ("EulerAncestralDiscreteScheduler", "euler_a", "linspace"),
        ("dpmpp_2m_karras", "dpmpp_2m", "karras"),
        ("diffusers:DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("Euler a", "euler_a", "a1111:normal"),
        (" Euler ", "euler", "a1111:normal"),
        ("euler", "euler", "linspace"),
        ("DPM++ 2M", "dpmpp_2m", "a1111:karras"),  # what its "Automatic" takes
        ("dpm++ 2m karras", "dpmpp_2m", "a1111:karras"),
        ("DPM++ 2M Exponential", "dpmpp_2m", "a1111:exponential"),
        ("DPM++ 2M SGM Uniform", "dpmpp_2m", "a1111:sgm_uniform"),
        ("DPM++ 2M Align Your Steps", "dpmpp_2m", "a1111:ays"),
        ("Euler Uniform", "euler", "a1111:normal"),
        ("Heun Karras", "heun", "a1111:karras"),
        ("LCM", "lcm", "a1111:lcm"),
        ("lcm", "lcm", "lcm"),
        ("k_dpm_2_a", "dpm2_a", "kdiffusion:normal"),
        ("DDIM Karras", "ddim", "karras"),
        ("sample_euler_ancestral", "euler_a", "kdiffusion:normal"),
        ("sample_dpmpp_2m", "dpmpp_2m", "kdiffusion:normal"),
        ("comfyui:euler_ancestral", "euler_a", "comfyui:simple"),
        ("comfyui:dpmpp_2m karras", "dpmpp_2m", "comfyui:karras"),
    ],
)
def test_every_dialect(name, short, spacing):
    scheduler = resolve(name)
    assert (scheduler.name, scheduler.spacing.name) == (short, spacing)


@pytest.mark.parametrize(
    ("name", "spacing", "found"),
    [
        ("euler", "a1111:karras", "a1111:karras"),
        ("euler", "A1111:Karras", "a1111:karras"),
        ("Euler", "karras", "a1111:karras"),
        ("Euler", "diffusers:karras", "karras"),
        ("Euler", "leading", "leading"),  # A1111 has none
        ("Euler a", "comfyui:beta", "comfyui:beta"),
        ("DPM++ 2M Karras", "karras", "a1111:karras"),
        ("comfyui:euler", "beta", "comfyui:beta"),
    ],
)
def test_a_spacing_follows_the_schedulers_tool_unless_told(name, spacing, found):
    scheduler = resolve(name, spacing)
    assert scheduler.spacing.name == found
    again = resolve(scheduler.name, scheduler.spacing.name)
    assert again.plan(7) == scheduler.plan(7)  # as `rerun` does


def test_names_mean_one_thing():
    names = [name for entry in TABLE for name in entry.names]
    for entry in TABLE:
        for name in entry.names:
            assert resolve(name).name == entry.name, name
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("config", [SD, SD21, SDXL, None])
@pytest.mark.parametrize("name", [None, *CLASS_OF])
def test_a_checkpoints_config_gives_what_diffusers_gives(name, config):
    """Also under another class, where diffusers' from_config decides which fields carry over."""
    diffusers = pytest.importorskip("diffusers")
    own = SD if config is None else config
    wanted = own["_class_name"] if name is None else CLASS_OF[name]
    loaded = getattr(diffusers, own["_class_name"]).from_config(own)
    theirs = diffusers_scheduler(wanted, loaded.config)
    theirs.set_timesteps(20)
    ours = resolve(name, config=config)
    plan = ours.plan(20)
    t = theirs.timesteps[:: theirs.order].tolist()
    assert list(plan.timesteps) == list(dict.fromkeys(t))
    assert ours.prediction_type == own.get("prediction_type", "epsilon")
    if hasattr(theirs, "sigmas") and theirs.init_noise_sigma != 1:
        assert plan.start_scale == pytest.approx(float(theirs.init_noise_sigma), rel=1e-7)
    else:
        assert plan.start_scale == pytest.approx((1 + plan.sigmas[0] ** 2) ** 0.5)
    if hasattr(theirs, "final_alpha_cumprod") and name != "lcm":  # whose step has no use for it
        last = float(theirs.final_alpha_cumprod)
        assert plan.end_scale == pytest.approx(last**0.5, rel=1e-7)


def test_a_missing_offset_is_one_at_home_and_zero_abroad():
    """The pipelines correct it in the loaded scheduler; from_config then takes the new default."""
    config = {key: value for key, value in SD.items() if key != "steps_offset"}
    assert resolve(config=config).plan(10).timesteps[-1] == 1
    assert resolve("ddim", config=config).plan(10).timesteps[-1] == 0
    assert resolve("ddim", config={**SD, "steps_offset": 0}).plan(10).timesteps[-1] == 1


def test_the_config_says_whether_pndm_starts_with_runge_kutta():
    """The class does what the file says, and False where it is silent; our names are fixed."""
    silent = {key: value for key, value in SD.items() if key != "skip_prk_steps"}
    for config in (silent, {**SD, "skip_prk_steps": False}):
        assert resolve(config=config).name == "pndm_prk"
        assert resolve("PNDMScheduler", config=config).name == "pndm_prk"
        assert resolve("pndm", config=config).name == resolve("PLMS", config=config).name == "pndm"
    assert resolve(config=SD).name == resolve("PNDMScheduler").name == "pndm"


def test_every_scheduler_runs_with_the_config_of_dpm_solvers():
    """As with the bundled model's. diffusers has no SA-Solver from such a file."""
    config = {**SD, "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++"}
    for entry in TABLE:
        assert resolve(entry.name, config=config).name == entry.name
    for kind in ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"):
        for name in ("sa_solver", "deis"):
            ours = resolve(name, config={**config, "algorithm_type": kind}).solver
            assert ours.keywords == resolve(name).solver.keywords


def test_configs_come_from_json():
    text = json.dumps({**SDXL, "sigma_min": None, "lambda_min_clipped": -float("inf")})
    assert resolve(config=json.loads(text)).plan(5).sigmas == resolve(config=SDXL).plan(5).sigmas


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "eulr"}, "unknown scheduler 'eulr': did you mean euler"),
        ({"name": "dpm++ 2n"}, "did you mean DPM++ 2"),
        ({"name": "zzzz"}, "known are ddim, deis, dpm2"),
        ({"name": "euler", "spacing": "karas"}, "unknown spacing 'karas': did you mean karras?"),
        ({"name": "euler", "spacing": ""}, "unknown spacing"),
        ({"name": "DPM++ 2M Karras", "spacing": "leading"}, "says karras"),
        ({"name": "ddim", "eta": float("nan")}, "eta must be a finite number"),
        ({"name": "ddim", "eta": float("inf")}, "eta must be a finite number"),
        ({"name": "ddim", "eta": -0.1}, "at least 0"),
        ({"name": "heun", "eta": 0.5}, "heun adds no noise"),
        ({"config": {"_class_name": "RePaintScheduler"}}, "choose one of ddim"),
        ({"config": {}}, "choose one of ddim"),
        ({"config": {**SD, "beta_schedule": "sigmoid"}}, "unknown beta schedule 'sigmoid'"),
        ({"name": "dpmpp_2m", "config": {**SD, "solver_order": 4}}, "solver_order = 4"),
        ({"name": "dpmpp_2m", "config": {**SD, "use_flow_sigmas": True}}, "use_flow_sigmas = True"),
        ({"name": "euler", "config": {**SD, "timestep_type": "continuous"}}, "timestep_type"),
        (
            {"name": "dpmpp_2m", "config": {**SD, "algorithm_type": "sde-dpmsolver"}},
            "algorithm_type",
        ),
        (
            {
                "name": "DPMSolverMultistepScheduler",
                "config": {**SD, "algorithm_type": "dpmsolver"},
            },
            "set final_sigmas_type = 'sigma_min'",
        ),
        ({"name": "webui:euler"}, "unknown tool 'webui'"),
        ({"name": "euler_cfg_pp"}, "is euler with CFG++, another guidance"),
        ({"name": "comfyui:euler_ancestral_cfg_pp"}, "take euler_a"),
        ({"name": "euler", "spacing": "a1111:leading"}, "unknown spacing of A1111 'leading'"),
        ({"name": "euler", "spacing": "sigmas:1,b"}, "cannot read the sigmas"),
        ({"name": "euler", "spacing": "sigmas:1"}, "at least two"),
        ({"name": "euler", "spacing": "sigmas:1,2"}, "do not fall"),
        ({"name": "euler", "spacing": "sigmas:inf,2"}, "not all finite"),
        ({"name": "euler", "spacing": "timesteps:5,-1"}, "not all finite numbers of at least 0"),
        ({"name": "Euler Karras", "spacing": "sigmas:3,1"}, "says karras spacing"),
        ({"name": "euler", "spacing": "sigmas:3,1", "tail": "zero"}, "leave the tail out"),
        ({"name": "euler", "tail": "nought"}, "unknown tail 'nought'"),
        ({"name": "euler", "tail": -1.0}, "at least 0"),
        ({"name": "euler", "tail": "nan"}, "at least 0"),
        ({"name": "ddim", "config": {**SD, "timestep_spacing": "odd"}}, "timestep_spacing = 'odd'"),
        ({"name": "ddim", "config": {**SD, "beta_end": [1]}}, "beta_end = [1]"),
        ({"name": "ddim", "config": {**SD, "beta_schedule": [1]}}, "beta_schedule = [1]"),
        ({"name": "ddim", "config": {**SD, "num_train_timesteps": 1.5}}, "timesteps = 1.5"),
        ({"name": "ddim", "config": {**SD, "num_train_timesteps": 0}}, "has 0 betas"),
        ({"name": "ddim", "config": {**SD, "beta_start": -1}}, "betas from -1"),
        ({"config": {**SD, "_class_name": ["x"]}}, "scheduler ['x'] is not here"),
        ({"name": "ddim", "config": {**SD, "beta_start": 0}}, "betas from 0"),
        ({"name": "ddim", "config": {**SD, "num_train_timesteps": 10**9}}, "at most 100000"),
        ({"name": "ddim", "config": {**SD, "trained_betas": ["x"]}}, "trained_betas"),
        ({"name": "ddim", "config": {**SD, "trained_betas": "x"}}, "trained_betas"),
        ({"name": "ddim", "config": {**SD, "trained_betas": [[0.1]]}}, "trained_betas"),
        ({"name": "ddim", "config": {**SD, "trained_betas": [0.0, 0.1]}}, "trained_betas"),
        ({"name": "ddim", "config": {**SD, "beta_end": float("nan")}}, "beta_end = nan"),
        ({"name": "unipc", "config": {**SD, "solver_type": {}}}, "solver_type = {}"),
        ({"name": "unipc", "config": {**SD, "disable_corrector": 5}}, "disable_corrector = 5"),
        ({"name": "dpmpp_2m", "config": {**SD, "algorithm_type": []}}, "algorithm_type = []"),
        ({"name": "euler", "config": {**SD, "sigma_min": "x"}}, "sigma_min = 'x'"),
        ({"name": "ddim", "config": {**SD, "prediction_type": ["x"]}}, "prediction_type = ['x']"),
        (
            {"name": "ddim", "config": {**SD, "thresholding": True, "sample_max_value": 0.5}},
            "sample_max_value = 0.5",
        ),
        (
            {
                "name": "ddim",
                "config": {**SD, "thresholding": True, "dynamic_thresholding_ratio": 2},
            },
            "dynamic_thresholding_ratio = 2",
        ),
        ({"name": "nowhere.py"}, "no solver file"),
    ],
)
def test_refusals_are_one_clear_line(arguments, message):
    with pytest.raises(InputError) as caught:
        resolve(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [None, "euler", "Euler a", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize(
    "class_name",
    ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "FlowMatchLCMScheduler",
     "CMStochasticIterativeScheduler"],
)  # fmt: skip
def test_a_network_that_was_trained_on_something_else_is_refused_by_name(name, class_name):
    with pytest.raises(InputError, match=f"scheduler is {class_name}: its network was trained on"):
        resolve(name, config={**SD, "_class_name": class_name, "sigma_max": 80.0})


@pytest.mark.parametrize("name", ["DDIMParallelScheduler", "DDPMParallelScheduler"])
def test_parallel_classes_are_their_plain_ones(name):
    plain = name.replace("Parallel", "")
    for config in (SD, {**SD, "_class_name": name}, {**SD, "_class_name": plain}):
        ours, theirs = resolve(name, config=config), resolve(plain, config=config)
        assert (ours.name, ours.plan(7)) == (theirs.name, theirs.plan(7))
    config = {"_class_name": name, "beta_start": 0.00085, "beta_end": 0.012}
    assert resolve(config=config).plan(7) == resolve(config=config | {"_class_name": plain}).plan(7)


def test_the_offset_is_corrected_where_the_pipeline_does_that():
    config = {**SDXL, "steps_offset": 0}
    assert resolve(config=config).plan(10).timesteps[-1] == 1
    assert resolve(config=config, corrected=False).plan(10).timesteps[-1] == 0
    silent = {key: value for key, value in SDXL.items() if key != "steps_offset"}
    assert resolve(config=silent, corrected=False).plan(10).timesteps[-1] == 0
    assert (
        resolve("ddim", config={**SDXL, "steps_offset": 2}, corrected=False).plan(10).timesteps[-1]
        == 2
    )


@pytest.mark.parametrize("spacing", ["karras", "exponential", "beta", "leading", "trailing"])
@pytest.mark.parametrize("config", [SD, SDXL])
def test_euler_ancestral_without_noise_is_euler_on_the_same_grid(spacing, config):
    """diffusers' ancestral class has no Karras sigmas of its own to imitate."""
    euler = resolve("euler", spacing, config=config)
    ancestral = resolve("euler_a", spacing, eta=0.0, config=config)
    assert ancestral.plan(6) == euler.plan(6)
    assert torch.equal(our_latents(ancestral, 6), our_latents(euler, 6))


def test_a_million_steps_are_refused_at_once():
    for name, spacing in (("euler", "karras"), ("LCM", None), ("DPM++ 2M Karras", None)):
        for steps in (10_001, 10**7, 2**63):
            with pytest.raises(InputError, match="at most 10000"):
                resolve(name, spacing).plan(steps)


def test_eta_zero_means_zero():
    assert resolve("euler_a", eta=0.0).solver.keywords["eta"] == 0.0
    assert resolve("euler_a").solver.keywords["eta"] == 1.0
    resolve("heun", eta=0.0)


def halfway(denoise, x, interval, memory, draw):
    """A user's solver: the explicit midpoint rule."""
    sigma, sigma_next = interval.sigma, interval.sigma_next
    here = denoise(x, sigma)
    middle = (sigma + sigma_next) / 2
    there = denoise(here.x0 + middle * here.eps, middle)
    return x + (sigma_next - sigma) * there.eps, here, ()


def test_a_function_is_a_scheduler():
    scheduler = resolve(halfway, spacing="karras")
    assert isinstance(scheduler, Scheduler)
    assert (scheduler.name, scheduler.solver) == ("halfway", halfway)
    plan = scheduler.plan(8)
    steps = list(sample(gaussian, torch.ones(1, 1, 2, 2), plan.sigmas, scheduler.solver))
    assert [step.nfe for step in steps] == [2] * 8


def test_a_file_is_a_scheduler(tmp_path):
    path = tmp_path / "my_solver.py"
    path.write_text(
        "def my_solver(denoise, x, interval, memory, draw, *, eta=0.25):\n"
        "    prediction = denoise(x, interval.sigma)\n"
        "    return prediction.x0 + interval.sigma_next * prediction.eps, prediction, ()\n"
    )
    scheduler = resolve(str(path))
    assert scheduler.name == "my_solver"
    assert resolve(str(path), eta=0.5).solver.keywords == {"eta": 0.5}
    x = torch.ones(1, 1, 2, 2)
    sigmas = scheduler.plan(3).sigmas
    ours = list(sample(gaussian, x, sigmas, scheduler.solver))
    euler = list(sample(gaussian, x, sigmas, resolve("euler").solver))
    assert torch.allclose(ours[-1].x_next, euler[-1].x_next)


@pytest.mark.parametrize("text", ["x = 1\n", "1 / 0\n", "def f(:\n"])
def test_a_file_without_a_solver_is_refused(tmp_path, text):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(InputError, match=r"broken\.py"):
        load_solver(path)


STEP = """
def step(denoise, x, interval, memory, draw, *, share=1.0):
    prediction = denoise(x, interval.sigma)
    return prediction.x0 + share * interval.sigma_next * prediction.eps, prediction, ()
"""


@pytest.mark.parametrize(
    "made",
    [
        "from functools import partial\nsolver = partial(step, share=1)\n",
        "class Step:\n    def __call__(self, *given): return step(*given)\nsolver = Step()\n",
    ],
)
def test_whatever_can_be_called_is_a_solver_named_like_its_file(tmp_path, made):
    path = tmp_path / "mine.py"
    path.write_text(STEP + made)
    scheduler = resolve(str(path))
    assert scheduler.name == "mine"
    x, sigmas = torch.ones(1, 1, 2, 2), scheduler.plan(3).sigmas
    ours, euler = (
        list(sample(gaussian, x, sigmas, solver))[-1].x_next
        for solver in (scheduler.solver, resolve("euler").solver)
    )
    assert torch.allclose(ours, euler)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise SystemExit(3)\n", "bad.py does not run: SystemExit: 3"),
        ("def solver(denoise, x, sigma): pass\n", "takes (denoise, x, sigma), and is given"),
        ("def solver(*_): return 1, 2\n", "returns (int, int) and not (x_next, prediction, memo"),
        ("def solver(*_): yield 1\n", "returns generator and not"),
        ("def solver(*_):\n    return 1 / 0\n", "bad.py, line 2: ZeroDivisionError"),
        ("import json\ndef solver(*_):\n    json.loads('x')\n", "bad.py, line 3: JSONDecodeError"),
        ("def solver(*_):\n    raise GeneratorExit\n", "bad.py, line 2: GeneratorExit"),
        ("import torch\nsolver = torch.add\n", "the solver of bad.py takes"),
        ("def solver(d, *_):\n    d(None, 1.0)\n", "line 2: denoise is asked at NoneType"),
        ("def solver(d, x, *_):\n    d(x, None)\n", "line 2: denoise is asked at sigma None"),
        ("def solver(d, x, *_):\n    d(x, float('nan'))\n", "denoise is asked at sigma nan"),
        ("def solver(d, x, *_):\n    d(x[:, :, :1], 1.0)\n", "float32[1, 1, 1, 2] on cpu, where x"),
    ],
)
def test_a_file_with_a_wrong_solver_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        list(sample(gaussian, torch.ones(1, 1, 2, 2), (1.0, 0.0), resolve(str(path)).solver))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_model_raises_is_not_the_solvers_mistake(tmp_path):
    path = tmp_path / "good.py"
    path.write_text(STEP + "solver = step\n")

    def broken(x, sigma):
        raise KeyError("of the model")

    with pytest.raises(KeyError):
        list(sample(broken, torch.ones(1, 1, 2, 2), (1.0, 0.0), resolve(str(path)).solver))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("p.x0[:, :, :1]", "returns float32[1, 1, 1, 2] on cpu for x, float32[1, 1, 2, 2] on cpu"),
        ("p.x0.repeat(2, 1, 1, 1)", "returns float32[2, 1, 2, 2]"),
        ("p.x0.long()", "returns int64"),
        ("p.x0.double()", "returns float64"),
        ("p.x0.to('meta')", "on meta"),
        ("p.x0.to_sparse()", "on cpu sparse_coo"),
        ("p.x0 * float('nan')", "an x_next that is not finite, from an x that is"),
    ],
)
def test_an_x_that_is_not_like_x_is_told_in_its_step(tmp_path, answer, message):
    path = tmp_path / "bad.py"
    path.write_text(
        "def solver(denoise, x, interval, memory, draw):\n"
        f"    p = denoise(x, 1.0)\n    return {answer}, p, memory\n"
    )
    with pytest.raises(InputError, match=r"^bad\.py returns") as caught:
        list(sample(gaussian, torch.ones(1, 1, 2, 2), (1.0, 0.0), resolve(str(path)).solver))
    assert message in str(caught.value)


def test_options_of_a_solver_in_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        STEP
        + "class Mine:\n"
        + "    def __init__(self, share=1.0): self.share = share\n"
        + "    def __call__(self, *given): return step(*given, share=self.share)\n"
    )
    ends = [
        list(sample(gaussian, torch.ones(1, 1, 2, 2), (1.0, 0.5), load_solver(path, name, options)))
        for name, options in (("Mine", {"share": 0.25}), ("step", {"share": 0.25}), ("step", {}))
    ]
    assert torch.equal(ends[0][-1].x_next, ends[1][-1].x_next)
    assert not torch.equal(ends[0][-1].x_next, ends[2][-1].x_next)
    with pytest.raises(InputError, match=r"no option 'scale' .*: its options are share=1.0"):
        load_solver(path, "Mine", {"scale": 1})


def test_a_model_names_its_own_spacing() -> None:
    """Where neither the scheduler's name nor the caller does; others keep the class's ends."""
    config = {**SD15, "_spacing": "trailing"}
    for name in (None, "euler", "dpmpp_2m"):
        assert resolve(name, config=config).spacing.name == "trailing"
    for name, spacing in (("DPM++ 2M Karras", None), ("comfyui:euler", None), ("euler", "karras")):
        plans = [resolve(name, spacing, config=each).plan(5) for each in (config, SD15)]
        assert plans[0].sigmas == plans[1].sigmas
    with pytest.raises(InputError):
        resolve("euler", config={**SD15, "_spacing": "nonsense"})


def test_a_tolerance_makes_a_pair_adaptive() -> None:
    from functools import partial

    from sdcore.schedulers.solvers.runge_kutta import runge_kutta

    assert not resolve("bosh3").entry.adaptive
    assert resolve("bosh3:rtol=0.05").entry.adaptive
    own = partial(runge_kutta, tableau=resolve("bosh3").solver.keywords["tableau"], rtol=0.05)
    assert resolve(own).entry.adaptive
