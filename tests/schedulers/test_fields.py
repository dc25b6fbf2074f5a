"""Every field of every class's config that changes numbers, one at a time, against live diffusers.

The base is SD 1.5's file under each of the classes. A case sets one field, and what else it needs
to matter; then the network's inputs of the whole run and its end are compared. A field or a value
that diffusers has and the table has not makes a test fail, and so does a case that changes nothing.
"""

import inspect
import math
import sys
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import torch

from scripts.trajectories import SD, SEEDS, SHAPE, diffusers_scheduler, wavy
from sdcore.brownian import BrownianNoise
from sdcore.compare.quirks import BY_NAME
from sdcore.denoiser import Denoiser
from sdcore.errors import InputError
from sdcore.guidance import CFG
from sdcore.noise import SeededNoise
from sdcore.process import FLOW, VariancePreserving
from sdcore.sampling import State, sample
from sdcore.schedulers import Scheduler, resolve
from sdcore.schedulers.conventions import CONVENTIONS
from sdcore.schedulers.flow_schedule import FlowSchedule, Shift

diffusers = pytest.importorskip("diffusers")
diffusers.logging.set_verbosity_error()

COUNTS = (10, 5)
LONGER = (10, 16)  # where diffusers ends otherwise from 15 steps on
SHORT_STEPS = (10, 20)  # of DPM2 ancestral, whose float32 sigma_down is 1e-5 off in longer ones
LIMIT = 1e-5  # of the largest absolute value, where that is above 1
T_LIMIT = 2.1e-3  # diffusers' logarithms are float32; test_spacing compares t itself
# What float32 leaves, which diffusers' numbers are in: of (x - x0) / sigma where sigma is 4096, and
# on the cosine table, whose first x0 are beyond 1000.
AT_4096 = 4 * 4096 * 2.0**-24
COSINE = 2000 * 2.0**-23
CHANGED = 1e-4

Outcome = Literal[
    "equal",
    "nothing",  # the field changes no number, here or there
    "corrected",  # SD's pipelines write the base's value over it
    "refused",  # here; `says` is in the sentence
    "only here",  # the reference refuses it
    "wrong there",  # `says` names the quirk
]


@dataclass(frozen=True)
class Case:
    """One value of a field, what else is set with it, and how the two compare."""

    value: Any
    outcome: Outcome = "equal"
    says: str = ""
    also: Mapping[str, Any] = field(default_factory=dict)
    limit: float = LIMIT
    double: bool = False  # in float64, where diffusers' float32 cancels


def given(value: Any, **also: Any) -> Case:
    return Case(value, also=also)


def nothing(value: Any, **also: Any) -> Case:
    return Case(value, "nothing", also=also)


def refused(value: Any, says: str, **also: Any) -> Case:
    return Case(value, "refused", says, also)


def only_here(value: Any) -> Case:
    return Case(value, "only here")


def wrong(value: Any, quirk: str, **also: Any) -> Case:
    return Case(value, "wrong there", quirk, also)


def flow(value: Any, **also: Any) -> Case:
    """Along the straight path, which tests/schedulers/test_flow.py compares."""
    return Case(value, "flow", also=also)


Table = Mapping[str, list[Any]]  # field -> its values; a plain one is Case(value)

NOT_FLOW = "what a network says along the straight path"
OF_FLOW = {"prediction_type": "flow_prediction"}
VARIANCE = "networks that predict a variance"
V_AT_THE_END = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
TO_SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
SPACINGS = ["leading", "trailing", "linspace"]
BETAS = torch.linspace(0.0001, 0.011, 1000).tolist()

EVERY: Table = {
    "num_train_timesteps": [500],
    "beta_start": [0.0005],
    "beta_end": [0.02],
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2"],
    "trained_betas": [BETAS],
    "prediction_type": ["epsilon", "v_prediction", "sample"],
    "timestep_spacing": SPACINGS,
    "steps_offset": [Case(0, "corrected")],
    "start": [3],  # image to image, which is no field
}
REFUSES_X0: Table = {"prediction_type": ["epsilon", "v_prediction", only_here("sample")]}
CLIP: Table = {
    "clip_sample": [Case(True, "corrected")],
    "clip_sample_range": [nothing(0.5), Case(0.5, "corrected", also={"clip_sample": True})],
}
THRESHOLD: Table = {
    "thresholding": [True],
    "dynamic_thresholding_ratio": [
        nothing(0.9),
        given(0.9, thresholding=True, sample_max_value=1.5),
    ],
    "sample_max_value": [nothing(1.5), given(1.5, thresholding=True)],
}
ZERO_SNR: Table = {
    "rescale_betas_zero_snr": [
        given(True, timestep_spacing="leading"),
        given(True, **V_AT_THE_END),
    ],
}
BY_SIGMA: Table = {
    "rescale_betas_zero_snr": [
        given(True, timestep_spacing="leading"),
        Case(True, also=V_AT_THE_END, limit=AT_4096),
    ],
}
CURVES: Table = {
    "use_karras_sigmas": [True],
    "use_exponential_sigmas": [True],
    "use_beta_sigmas": [True],
}
CUT_CURVES: Table = {
    "use_karras_sigmas": [True],
    "use_exponential_sigmas": [wrong(True, "diffusers.dpm.exp_trunc")],
    "use_beta_sigmas": [wrong(True, "diffusers.dpm.exp_trunc")],
}
LIMITS: Table = {
    "sigma_min": [given(0.1, use_karras_sigmas=True)],
    "sigma_max": [given(10.0, use_karras_sigmas=True)],
}
FINAL: Table = {"final_sigmas_type": ["zero", "sigma_min"]}
FLOWS: Table = {
    "use_flow_sigmas": [refused(True, NOT_FLOW), flow(True, **OF_FLOW)],
    "flow_shift": [nothing(3.0), flow(3.0, use_flow_sigmas=True, **OF_FLOW)],
}
SHIFTS: Table = {
    "use_dynamic_shifting": [
        nothing(True),
        refused(True, "give it mu", use_flow_sigmas=True, **OF_FLOW),
    ],
    "time_shift_type": ["exponential"],
}
LEARNED: Table = {
    "variance_type": [refused("learned", VARIANCE), refused("learned_range", VARIANCE)]
}
DPM: Table = {
    **EVERY,
    **CUT_CURVES,
    **THRESHOLD,
    **FLOWS,
    "prediction_type": [
        *EVERY["prediction_type"],
        flow("flow_prediction"),
    ],
    "solver_order": [1, 2, 3],
}
DISTILLED: Table = {
    **EVERY,
    **CLIP,
    "beta_schedule": [
        "linear",
        "scaled_linear",
        Case("squaredcos_cap_v2", limit=COSINE, double=True),
    ],
    "timestep_spacing": list(map(nothing, SPACINGS)),
    "rescale_betas_zero_snr": [
        refused(True, "infinite sigma"),
        given(True, prediction_type="v_prediction"),
    ],
    "original_inference_steps": [25],
    "set_alpha_to_one": [nothing(True)],
}

TABLE: Mapping[str, Table] = {
    "DDIMScheduler": {
        **EVERY,
        **CLIP,
        **THRESHOLD,
        **ZERO_SNR,
        "timestep_spacing": [
            "leading",
            "trailing",
            wrong("linspace", "diffusers.ddim.stride_prev"),
        ],
        "set_alpha_to_one": [True],
        "eta": [0.5, 1.0],  # of step(), which is no field
    },
    "DDPMScheduler": {
        **EVERY,
        **CLIP,
        **THRESHOLD,
        **ZERO_SNR,
        "beta_schedule": [*EVERY["beta_schedule"], refused("sigmoid", "beta schedule 'sigmoid'")],
        "variance_type": [
            nothing("fixed_small_log"),
            given("fixed_large", timestep_spacing="linspace"),
            wrong("fixed_large", "diffusers.ddpm.noise_at_the_end"),
            wrong("fixed_large_log", "diffusers.ddpm.fixed_large_log"),
            *LEARNED["variance_type"],
        ],
    },
    "PNDMScheduler": {
        **EVERY,
        "prediction_type": [
            wrong("v_prediction", "diffusers.pndm.v_mix"),
            only_here("sample"),
        ],
        "timestep_spacing": ["trailing", wrong("linspace", "diffusers.pndm.stride_prev")],
        "set_alpha_to_one": [True],
        "skip_prk_steps": [False],
        "start": [wrong(3, "diffusers.pndm.img2img")],
    },
    "LCMScheduler": {**DISTILLED, **THRESHOLD, "timestep_scaling": [0.01]},
    "TCDScheduler": {
        **DISTILLED,
        "thresholding": [wrong(True, "diffusers.tcd.no_thresholding")],
        "dynamic_thresholding_ratio": [
            nothing(0.9),
            wrong(0.9, "diffusers.tcd.no_thresholding", thresholding=True),
        ],
        "sample_max_value": [
            nothing(1.5),
            wrong(1.5, "diffusers.tcd.no_thresholding", thresholding=True),
        ],
        "timestep_scaling": [nothing(0.01)],
        "eta": [0.0, 0.5, 1.0],
    },
    "EulerDiscreteScheduler": {
        **EVERY,
        **BY_SIGMA,
        **CURVES,
        **LIMITS,
        **FINAL,
        "interpolation_type": [wrong("log_linear", "diffusers.euler.log_linear")],
        "timestep_type": [refused("continuous", "log(sigma) / 4")],
    },
    "EulerAncestralDiscreteScheduler": {**EVERY, **BY_SIGMA, **REFUSES_X0},
    "HeunDiscreteScheduler": {**EVERY, **CURVES, **CLIP},
    "KDPM2DiscreteScheduler": {**EVERY, **CURVES, **REFUSES_X0},
    "KDPM2AncestralDiscreteScheduler": {
        **EVERY,
        **REFUSES_X0,
        "beta_schedule": [
            "linear",
            wrong("squaredcos_cap_v2", "diffusers.dpm2_a.float32_sigma_down"),
        ],
        "use_karras_sigmas": [wrong(True, "diffusers.dpm2_a.two_timesteps")],
        "use_exponential_sigmas": [True],
        "use_beta_sigmas": [True],
    },
    "LMSDiscreteScheduler": {**EVERY, **CURVES, "start": [wrong(3, "diffusers.lms.img2img")]},
    "DPMSolverSDEScheduler": {
        **EVERY,
        **CURVES,
        **REFUSES_X0,
        "beta_schedule": ["linear", Case("squaredcos_cap_v2", limit=COSINE)],
        "noise_sampler_seed": [nothing(3)],
    },
    "DPMSolverMultistepScheduler": {
        **DPM,
        **SHIFTS,
        **BY_SIGMA,
        **FINAL,
        **LEARNED,
        "algorithm_type": [
            refused("dpmsolver", "set final_sigmas_type = 'sigma_min'"),
            given("dpmsolver", **TO_SIGMA_MIN),
            refused("sde-dpmsolver", "ends with the wrong noise", **TO_SIGMA_MIN),
            "sde-dpmsolver++",
            wrong("sde-dpmsolver++", "diffusers.dpm.sde3_sign", solver_order=3),
        ],
        "solver_type": ["heun"],
        "lower_order_final": [nothing(False), given(False, solver_order=3)],
        "euler_at_final": [nothing(True), given(True, **TO_SIGMA_MIN, lower_order_final=False)],
        "use_lu_lambdas": [True],
        "lambda_min_clipped": [-1.0],
    },
    "DPMSolverSinglestepScheduler": {
        **DPM,
        **SHIFTS,
        **FINAL,
        **LEARNED,
        "algorithm_type": [
            refused("dpmsolver", "set final_sigmas_type = 'sigma_min'"),
            given("dpmsolver", **TO_SIGMA_MIN),
            refused("sde-dpmsolver++", "algorithm_type = 'sde-dpmsolver++'"),
        ],
        "solver_type": ["heun"],
        "lower_order_final": [nothing(True), given(True, **TO_SIGMA_MIN)],
        "lambda_min_clipped": [-1.0],
        # no fields of this class, which lays linspace whatever the file says
        "timestep_spacing": list(map(nothing, SPACINGS)),
    },
    "UniPCMultistepScheduler": {
        **DPM,
        **SHIFTS,
        **ZERO_SNR,
        **LIMITS,
        **FINAL,
        "use_dynamic_shifting": [only_here(True)],
        "solver_type": [
            wrong("bh1", "diffusers.unipc.into_zero"),
            given("bh1", **TO_SIGMA_MIN),
        ],
        "predict_x0": [
            wrong(False, "diffusers.unipc.into_zero"),
            given(False, **TO_SIGMA_MIN),
        ],
        "lower_order_final": [
            wrong(False, "diffusers.unipc.into_zero"),
            given(False, **TO_SIGMA_MIN),
        ],
        "disable_corrector": [[0, 1]],
        "solver_p": [refused("DDIMScheduler", "second scheduler")],
        "shift_terminal": [only_here(0.1)],
    },
    "DEISMultistepScheduler": {
        **DPM,
        **SHIFTS,
        "solver_order": [1, Case(3, double=True)],
        "algorithm_type": ["deis"],
        "solver_type": ["logrho"],
        "lower_order_final": [False],
    },
    "SASolverScheduler": {
        **{key: values for key, values in DPM.items() if key != "solver_order"},
        **LEARNED,
        "beta_schedule": [
            "linear",
            "scaled_linear",
            Case("squaredcos_cap_v2", double=True),
        ],
        "predictor_order": [1, 3],
        "corrector_order": [1, 3],
        "tau_func": [refused("lambda t: 0", "Python function")],
        "algorithm_type": [Case("noise_prediction", double=True)],
        "lower_order_final": [False],
        "lambda_min_clipped": [-1.0],
    },
}
NO_FIELDS = ("start", "eta")
# Their stages divide by a sigma inside the step, and multiply float32 rounding by up to 501.
IN_FLOAT64 = (
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)


def parameters(class_name: str) -> Mapping[str, inspect.Parameter]:
    found = dict(inspect.signature(getattr(diffusers, class_name).__init__).parameters)
    del found["self"]
    return found


def counts(class_name: str) -> tuple[int, int]:
    ends = {"lower_order_final", "euler_at_final"} & set(TABLE[class_name])
    if class_name == "KDPM2AncestralDiscreteScheduler":
        return SHORT_STEPS
    return LONGER if ends else COUNTS


def base(class_name: str, name: str) -> Any:
    """What the field is where only SD 1.5's file speaks."""
    known = parameters(class_name)
    return SD.get(name, known[name].default if name in known else None)


def cases() -> list[Any]:
    found = []
    for class_name, table in TABLE.items():
        for name, values in table.items():
            for value in values:
                case = value if isinstance(value, Case) else Case(value)
                if case.also or case.value != base(class_name, name) or case.says:
                    also = "".join(f", {key}={said}" for key, said in case.also.items())
                    short = class_name.removesuffix("Scheduler")
                    label = f"{short} {name}={str(case.value)[:20]}{also}"
                    found.append(pytest.param(class_name, name, case, id=label))
    return found


@dataclass(frozen=True)
class Run:
    """What the network was given, the latents of the end, and the draws of noise."""

    tensors: list[torch.Tensor] = field(default_factory=list)
    timesteps: list[float] = field(default_factory=list)
    drawn: list[torch.Tensor] = field(default_factory=list)

    def model(self, x: torch.Tensor, t: Any, context: Any = None, added: Any = None):
        self.tensors.append(x)
        self.timesteps.append(float(t))
        return wavy(x, t)

    @property
    def finite(self) -> bool:
        return all(bool(x.isfinite().all()) for x in self.tensors)


def apart(ours: Run, theirs: Run) -> float:
    """The largest error of the whole run; infinite where they ask more often or at other t."""
    if len(ours.tensors) != len(theirs.tensors) or not theirs.finite:
        return math.inf
    if any(abs(a - b) > T_LIMIT for a, b in zip(ours.timesteps, theirs.timesteps, strict=True)):
        return math.inf
    pairs = zip(ours.tensors, theirs.tensors, strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in pairs)


def picture(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(5)).to(dtype)


def our_run(scheduler: Scheduler, start: int, steps: int, dtype: torch.dtype) -> Run:
    plan, run = scheduler.plan(steps), Run()
    brownian = scheduler.entry.noise == "brownian"
    noise = (BrownianNoise if brownian else SeededNoise)(SEEDS, SHAPE)

    def note(*asked: Any) -> torch.Tensor:
        run.drawn.append(noise(*asked).to(dtype))
        return run.drawn[-1]

    told = {"cond": {"context": torch.zeros(len(SEEDS), 1, 1)}}
    process = VariancePreserving(plan, scheduler.prediction_type)
    denoise = Denoiser(run.model, process, told, CFG(1))
    x = noise.start().to(dtype)
    x = picture(dtype) + x * plan.sigmas[start] if start else x * plan.start_scale
    *_, step = sample(denoise, State(x, start), plan.sigmas, scheduler.solver, note)
    run.tensors.append(step.x_next * plan.end_scale)
    return run


def their_run(
    scheduler: Any,
    fields: Mapping[str, Any],
    steps: int,
    dtype: torch.dtype,
    drawn: list[torch.Tensor],
) -> Run:
    """drawn: for the class that needs torchsde, in place of its draws."""
    from scripts.trajectories import loop

    set_timesteps, draws, run = scheduler.set_timesteps, iter(drawn), Run()

    def with_our_path(steps: int) -> None:
        set_timesteps(steps)
        scheduler.noise_sampler = lambda *_: next(draws)

    if isinstance(scheduler, diffusers.DPMSolverSDEScheduler):
        scheduler.set_timesteps = with_our_path
    options = {key: fields[key] for key in NO_FIELDS if key in fields}
    options |= {"x0": picture(dtype)} if "start" in fields else {}
    with in_float64(type(scheduler)) if dtype == torch.float64 else nullcontext():
        run.tensors.append(loop(scheduler, steps, run.model, SHAPE, SEEDS, dtype=dtype, **options))
    return run


@contextmanager
def in_float64(scheduler_class: type) -> Iterator[None]:
    """The same draws, which the model's dtype would change, and the weights in float64."""
    from diffusers.utils.torch_utils import randn_tensor

    def draw(shape, generator=None, device=None, dtype=None, layout=None):
        return randn_tensor(shape, generator=generator).to(dtype)

    module = sys.modules[scheduler_class.__module__]
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(module, "randn_tensor"):
            patch.setattr(module, "randn_tensor", draw)
        name = "_sigma_to_alpha_sigma_t"
        if hasattr(scheduler_class, name):
            exact = getattr(scheduler_class, name)
            patch.setattr(scheduler_class, name, lambda self, sigma: exact(self, sigma.double()))
        yield


KEPT: dict[str, list[tuple[Run, Run]]] = {}  # a class's base is compared with all its fields


def both(class_name: str, fields: Mapping[str, Any], double: bool = False) -> list[tuple[Run, Run]]:
    """(ours, theirs) for either number of steps."""
    key = f"{class_name} {sorted(fields.items())} {double}"
    if key not in KEPT:
        dtype = torch.float64 if double or class_name in IN_FLOAT64 else torch.float32
        scheduler = resolve(class_name, eta=fields.get("eta"), config={**SD, **fields})
        theirs, KEPT[key] = diffusers_scheduler(class_name, **fields), []
        with torch.inference_mode():
            for steps in counts(class_name):
                ours = our_run(scheduler, fields.get("start", 0), steps, dtype)
                KEPT[key].append((ours, their_run(theirs, fields, steps, dtype, ours.drawn)))
    return KEPT[key]


@pytest.mark.parametrize("class_name", TABLE)
def test_the_base(class_name):
    for pair in both(class_name, {}):
        assert apart(*pair) <= LIMIT


@pytest.mark.parametrize(("class_name", "name", "case"), cases())
def test_a_field(class_name, name, case):
    fields = {**case.also, name: case.value}
    if case.outcome == "refused":
        for steps in counts(class_name):
            with pytest.raises(InputError) as caught:
                resolve(class_name, config={**SD, **fields}).plan(steps)
            assert case.says in str(caught.value)
            assert "\n" not in str(caught.value)
        return
    if case.outcome == "flow":
        scheduler = resolve(class_name, config={**SD, **fields})
        assert scheduler.prediction_type == FLOW
        shift = fields.get("flow_shift", 1.0)
        assert scheduler.noise_schedule == FlowSchedule(Shift(shift))
        return
    if case.outcome in ("corrected", "only here"):
        dtype = torch.float64 if class_name in IN_FLOAT64 else torch.float32
        scheduler = resolve(class_name, config={**SD, **fields})
        for i, steps in enumerate(counts(class_name)):
            ours = our_run(scheduler, 0, steps, dtype)
            assert ours.finite
            if case.outcome == "corrected":
                assert apart(ours, both(class_name, {})[i][0]) == 0
            else:
                with pytest.raises((NotImplementedError, ValueError)):
                    their_run(
                        diffusers_scheduler(class_name, **fields), fields, steps, dtype, ours.drawn
                    )
        return
    runs = both(class_name, fields, case.double)
    errors = [apart(*pair) for pair in runs]
    assert all(ours.finite for ours, _ in runs)
    if case.outcome == "wrong there":
        assert case.says in BY_NAME
        assert max(errors) > LIMIT, "right there by now: the quirk can go"
        return
    assert max(errors) <= case.limit
    plain = both(class_name, case.also, case.double)[0]
    moved = [apart(run, before) for run, before in zip(runs[0], plain, strict=True)]
    if case.outcome == "nothing":
        assert max(moved) <= LIMIT
    else:
        assert min(moved) > CHANGED, "it changes nothing"


@pytest.mark.parametrize("class_name", TABLE)
def test_every_field_of_the_reference_is_here(class_name):
    """And every field that sdcore reads, and every value that the reference names."""
    known, table = parameters(class_name), TABLE[class_name]
    assert set(known) | set(CONVENTIONS[class_name].fields) == set(table) - set(NO_FIELDS)
    for name, parameter in known.items():
        values = [case.value if isinstance(case, Case) else case for case in table[name]]
        values.append(base(class_name, name))
        wanted = [True, False] if isinstance(parameter.default, bool) else named(parameter)
        missing = [value for value in wanted if value not in values]
        assert not missing, f"{name} is not compared with {missing}"


def named(parameter: inspect.Parameter) -> list[Any]:
    """The values that a Literal in the annotation allows."""
    kinds = (parameter.annotation, *typing.get_args(parameter.annotation))
    return [
        value
        for kind in kinds
        if typing.get_origin(kind) is Literal
        for value in typing.get_args(kind)
    ]


def test_every_class_is_here():
    assert set(TABLE) == set(CONVENTIONS)


@pytest.mark.parametrize("class_name", TABLE)
def test_sds_pipelines_write_over_two_fields(class_name):
    """The cases called "corrected": what a pipeline makes of steps_offset 0 and clip_sample."""
    fields = {"steps_offset": 0, "clip_sample": True}
    parts = ("vae", "text_encoder", "tokenizer", "unet", "safety_checker", "feature_extractor")
    pipeline = diffusers.StableDiffusionPipeline(
        **dict.fromkeys(parts),
        scheduler=diffusers_scheduler(class_name, **fields),
        requires_safety_checker=False,
    )
    config = pipeline.scheduler.config
    assert config.get("steps_offset", 1) == 1
    assert not config.get("clip_sample", False)
