"""scheduler_config.json: what a checkpoint asks for, and what another scheduler makes of it.

The rules are diffusers' (0.42.1): a field counts if the file itself contains it and the class
knows it; else the class's own default stands, also when a file that was written for another class
is read (`from_config`). SD's pipelines then correct two fields: steps_offset to 1, clip_sample to
False.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from sdcore.errors import InputError, unknown
from sdcore.schedulers.noise_schedule import NoiseSchedule, make_betas, zero_terminal_snr
from sdcore.schedulers.spacing import Spacing, Tool, variants

Config = Mapping[str, Any]

# Stable Diffusion 1.5's published file: what is meant where no file is given.
SD15: Config = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}

_EVERY: Config = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
}
_SD_BETAS: Config = {"beta_start": 0.00085, "beta_end": 0.012}
_ZERO_SNR: Config = {"rescale_betas_zero_snr": False}
_SIGMAS: Config = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_LIMITS: Config = {"sigma_min": None, "sigma_max": None}
_THRESHOLD: Config = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
_DPM: Config = {
    **_EVERY,
    **_SIGMAS,
    **_THRESHOLD,
    "use_flow_sigmas": False,
    "lower_order_final": True,
}
_CLIPPED: Config = {"lambda_min_clipped": -float("inf"), "variance_type": None}
_DISTILLED: Config = {
    **_EVERY,
    **_SD_BETAS,
    **_ZERO_SNR,
    **_THRESHOLD,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "original_inference_steps": 50,
    "set_alpha_to_one": True,
    "timestep_scaling": 10.0,
}

# Each class's fields that change numbers, with their defaults.
CLASSES: Mapping[str, Config] = {
    "DDIMScheduler": {
        **_EVERY,
        **_ZERO_SNR,
        **_THRESHOLD,
        "timestep_spacing": "leading",
        "set_alpha_to_one": True,
    },
    "DDPMScheduler": {
        **_EVERY,
        **_ZERO_SNR,
        **_THRESHOLD,
        "timestep_spacing": "leading",
        "variance_type": "fixed_small",
    },
    "PNDMScheduler": {
        **_EVERY,
        "timestep_spacing": "leading",
        "set_alpha_to_one": False,
        "skip_prk_steps": False,
    },
    "LCMScheduler": _DISTILLED,
    "TCDScheduler": _DISTILLED,
    "EulerDiscreteScheduler": {
        **_EVERY,
        **_ZERO_SNR,
        **_SIGMAS,
        **_LIMITS,
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
    },
    "EulerAncestralDiscreteScheduler": {**_EVERY, **_ZERO_SNR},
    "HeunDiscreteScheduler": {**_EVERY, **_SIGMAS, **_SD_BETAS},
    "KDPM2DiscreteScheduler": {**_EVERY, **_SIGMAS, **_SD_BETAS},
    "KDPM2AncestralDiscreteScheduler": {**_EVERY, **_SIGMAS, **_SD_BETAS},
    "LMSDiscreteScheduler": {**_EVERY, **_SIGMAS},
    "DPMSolverSDEScheduler": {**_EVERY, **_SIGMAS, **_SD_BETAS},
    "DPMSolverMultistepScheduler": {
        **_DPM,
        **_CLIPPED,
        **_ZERO_SNR,
        "use_lu_lambdas": False,
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "euler_at_final": False,
        "final_sigmas_type": "zero",
    },
    "DPMSolverSinglestepScheduler": {
        **_DPM,
        **_CLIPPED,
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": False,
        "final_sigmas_type": "zero",
    },
    "UniPCMultistepScheduler": {
        **_DPM,
        **_ZERO_SNR,
        **_LIMITS,
        "solver_order": 2,
        "solver_type": "bh2",
        "predict_x0": True,
        "disable_corrector": [],
        "solver_p": None,
        "final_sigmas_type": "zero",
    },
    "DEISMultistepScheduler": {
        **_DPM,
        "solver_order": 2,
        "algorithm_type": "deis",
        "solver_type": "logrho",
    },
    "SASolverScheduler": {
        **_DPM,
        **_CLIPPED,
        "predictor_order": 2,
        "corrector_order": 2,
        "tau_func": None,
        "algorithm_type": "data_prediction",
    },
}
_UNIT_VARIANCE = ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler")
KEEPS_EPS = ("DDIMScheduler", "LCMScheduler", "TCDScheduler")  # when x0 is thresholded
_ONE_MORE = (  # lay one point more and leave out t = 0
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "SASolverScheduler",
)

# What is understood where not every value is. None and False mean the same: off.
_SUPPORTED: Config = {
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete",),
    "final_sigmas_type": ("zero", "sigma_min"),
    "use_flow_sigmas": (False, None),
    "solver_order": (1, 2, 3),
    "predict_x0": (True, False),
    "solver_p": (None,),
    "tau_func": (None,),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
# Why a field's other values, or this one, are not, where a list of what is does not say it.
_REASONS: Config = {
    "sde-dpmsolver": "with eps held where noise is added, a picture that the network knows exactly "
    "ends with the wrong noise",
    "use_flow_sigmas": "the loop of flow matching, whose networks are trained on another path from "
    "noise to picture",
    "variance_type": "for networks that predict a variance beside the noise",
    "timestep_type": "for networks that are told log(sigma) / 4 in place of t",
    "solver_p": "a second scheduler inside the first",
    "tau_func": "a Python function",
}
_SUPPORTED_BY: Mapping[str, Config] = {
    "DPMSolverMultistepScheduler": {
        "algorithm_type": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++"),
        "solver_type": ("midpoint", "heun"),
    },
    "DPMSolverSinglestepScheduler": {
        "algorithm_type": ("dpmsolver++", "dpmsolver"),
        "solver_type": ("midpoint", "heun"),
    },
    "UniPCMultistepScheduler": {"solver_type": ("bh1", "bh2")},
    "DEISMultistepScheduler": {"algorithm_type": ("deis",), "solver_type": ("logrho",)},
    "SASolverScheduler": {"algorithm_type": ("data_prediction", "noise_prediction")},
}

# A value that was written for another class, and what diffusers reads it as; where it refuses one
# (SA-Solver all of DPM-Solver's, DEIS the stochastic ones), what the class has.
_DPM_KINDS = ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++")
_DPM_ALIASES: Config = {
    "algorithm_type": {"deis": "dpmsolver++"},
    "solver_type": dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"),
}
_ALIASES: Mapping[str, Config] = {
    "DPMSolverMultistepScheduler": _DPM_ALIASES,
    "DPMSolverSinglestepScheduler": _DPM_ALIASES,
    "UniPCMultistepScheduler": {
        "solver_type": dict.fromkeys(("midpoint", "heun", "logrho"), "bh2"),
    },
    "DEISMultistepScheduler": {
        "algorithm_type": dict.fromkeys(_DPM_KINDS, "deis"),
        "solver_type": dict.fromkeys(("midpoint", "heun", "bh1", "bh2"), "logrho"),
    },
    "SASolverScheduler": {
        "algorithm_type": dict.fromkeys((*_DPM_KINDS, "deis"), "data_prediction"),
    },
}


def fields_for(class_name: str, config: Config) -> dict[str, Any]:
    """The values that diffusers' SD pipeline would run this class with, from this file.

    Raises InputError for a value that is not supported; none is silently ignored.
    """
    if class_name not in CLASSES:
        raise unknown("scheduler class", class_name, CLASSES)
    defaults = CLASSES[class_name]
    fields = {**defaults, **{key: config[key] for key in defaults if key in config}}
    own = config.get("_class_name", class_name) == class_name
    # A missing offset is corrected in the file's own class only; another takes its default, 0.
    fields["steps_offset"] = 1 if own or "steps_offset" in config else 0
    for key, readings in _ALIASES.get(class_name, {}).items():
        fields[key] = readings.get(fields[key], fields[key])
    supported = {**_SUPPORTED, **_SUPPORTED_BY.get(class_name, {})}
    for key, value in fields.items():
        if not _is_like(value, defaults[key]):
            raise InputError(f"the scheduler config has {key} = {value!r}: it cannot be that")
        if key in supported and value not in supported[key]:
            known = " or ".join(repr(v) for v in supported[key] if v is not None) or "null"
            reason = _REASONS.get(str(value), _REASONS.get(key))
            reason = f" ({reason})" if reason else ""
            raise InputError(
                f"the scheduler config asks for {key} = {value!r}{reason}; {class_name} has only "
                f"{known} here: change the field or choose another scheduler"
            )
    return fields


def _is_like(value: Any, default: Any) -> bool:
    """Whether a field may be of this type: numbers and texts where the class has them."""
    if type(default) is int:
        return type(value) is int and value >= 0
    if type(default) is float:
        no_limit = value is None and default == -math.inf
        return no_limit or type(value) in (int, float)
    return not isinstance(default, str) or isinstance(value, str)


def method_of(class_name: str, fields: Config) -> str | None:
    """Our name of the method that this class runs with these fields; None: it has but one.

    Raises InputError for DPM-Solver's eps form with final_sigmas_type "zero", as diffusers does.
    """
    if class_name == "PNDMScheduler":
        return "pndm" if fields["skip_prk_steps"] else "pndm_prk"
    algorithm = fields.get("algorithm_type")
    if algorithm == "dpmsolver" and fields["final_sigmas_type"] == "zero":
        raise InputError(
            "the scheduler config asks for algorithm_type = 'dpmsolver', which integrates eps "
            "over log sigma and cannot end at sigma 0: set final_sigmas_type = 'sigma_min', or "
            "choose dpm_2m or dpm_3m, whose step into 0 is Euler's"
        )
    if class_name != "DPMSolverMultistepScheduler":
        return None
    order = fields["solver_order"]
    if algorithm == "dpmsolver++":
        return {1: "ddim", 2: "dpmpp_2m", 3: "dpmpp_3m"}[order]
    if algorithm == "dpmsolver":
        return {1: "ddim", 2: "dpm_2m", 3: "dpm_3m"}[order]
    if order == 1:
        return "euler_a"
    heun = "_heun" if fields["solver_type"] == "heun" and order == 2 else ""
    return f"dpmpp_{order}m_sde{heun}"


def noise_schedule_of(class_name: str, fields: Config, tool: Tool | None = None) -> NoiseSchedule:
    """The training table, as diffusers' class or another tool computes it.

    Raises InputError for an unknown beta schedule.
    """
    dtype = torch.float32 if tool is None else torch.float64
    betas = (
        make_betas(
            fields["beta_schedule"],
            fields["beta_start"],
            fields["beta_end"],
            fields["num_train_timesteps"],
            dtype,
        )
        if fields["trained_betas"] is None
        else torch.tensor(fields["trained_betas"], dtype=dtype)
    )
    sigma_dtype = torch.float32 if tool is None else tool.dtype
    if not fields.get("rescale_betas_zero_snr"):
        return replace(NoiseSchedule.from_betas(betas), dtype=sigma_dtype)
    if tool is not None:
        floor = tool.floor
    elif class_name not in _UNIT_VARIANCE:
        floor = 2.0**-24  # diffusers' own: sigma 4096
    else:
        # Theirs is 0, sigma infinite. What is well defined there (v, x0) is so at 2^24 too, to
        # 6e-8; what is not (eps) has to be refused.
        floor = 0.0 if fields["prediction_type"] == "epsilon" else 2.0**-48
    return replace(NoiseSchedule.from_betas(zero_terminal_snr(betas), floor), dtype=sigma_dtype)


def spacing_of(
    class_name: str, fields: Config, schedule: NoiseSchedule, name: str | None
) -> Spacing:
    """The spacing of this name (None: the config's own) in the variant that this class runs."""
    name = _own_spacing(class_name, fields) if name is None else name
    base, offset = fields["timestep_spacing"], fields["steps_offset"]
    tail = fields.get("final_sigmas_type", "zero")
    if class_name in _UNIT_VARIANCE:
        origin = fields.get("original_inference_steps", 50)
        rules = variants(offset=offset, whole=True, origin=origin)
        # LCM always ends with x0 and TCD at t = 0, whatever the field says.
        to_one = {"LCMScheduler": True, "TCDScheduler": False}.get(
            class_name, fields.get("set_alpha_to_one", True)
        )
        tail = "zero" if to_one else "sigma_min"
        return Spacing(name, rules[name], tail, "unit_variance", "unit_variance")
    limits: dict[str, Any] = {
        "sigma_min": fields.get("sigma_min"),
        "sigma_max": fields.get("sigma_max"),
    }
    if class_name in _ONE_MORE:
        clip = fields.get("lambda_min_clipped")
        clip = -math.inf if clip is None else clip
        # The last timesteps, where lambda = -log sigma is below, are not used.
        last = sum(-log_sigma >= clip for log_sigma in schedule.log_sigmas)
        rules = variants(offset=offset, drop=1, whole=True, whole_curves=True, last=last, **limits)
        if class_name in ("DEISMultistepScheduler", "SASolverScheduler"):
            tail = "sigma_min"
        return Spacing(name, rules[name], tail, "unit_variance", "unit_variance")
    # Karras and its like take their range from the spaced grid: 11.0 to 0.041 with leading, N = 20.
    log_linear = fields.get("interpolation_type") == "log_linear"
    within = base if "use_karras_sigmas" in fields and not log_linear else ""
    dtype = torch.float64 if class_name == "DPMSolverSDEScheduler" else torch.float32
    rounded = name == "karras" and class_name.startswith("KDPM2")
    rules = variants(offset=offset, base=within, whole_curves=rounded, dtype=dtype, **limits)
    ranged = name in ("karras", "exponential", "beta")
    unit = (base if ranged else name) in ("leading", "ddim_uniform")
    tail = "sigma_min" if name == "log_linear" else tail
    return Spacing(name, rules[name], tail, "unit_variance" if unit else "sigma")


def _own_spacing(class_name: str, fields: Config) -> str:
    """The name of what the fields ask for."""
    asked = {
        "karras": fields.get("use_karras_sigmas"),
        "exponential": fields.get("use_exponential_sigmas") or fields.get("use_lu_lambdas"),
        "beta": fields.get("use_beta_sigmas"),
        "log_linear": fields.get("interpolation_type")
        == "log_linear",  # diffusers sends t of linspace
    }
    for name, wanted in asked.items():
        if wanted:
            return name
    if class_name in ("LCMScheduler", "TCDScheduler"):
        return "lcm"
    if class_name == "DPMSolverSinglestepScheduler":  # whatever the field says
        return "linspace"
    return fields["timestep_spacing"]
