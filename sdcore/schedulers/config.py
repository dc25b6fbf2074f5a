"""scheduler_config.json: what a checkpoint asks for, and what another scheduler makes of it.

The rules are diffusers' (0.42.1): a field counts if the file itself contains it and the class
knows it; else the class's own default stands, also when a file that was written for another class
is read (`from_config`). SD's pipelines then correct two fields: steps_offset to 1, clip_sample to
False.
"""

from collections.abc import Mapping
from typing import Any

import torch

from sdcore.errors import InputError
from sdcore.schedulers.noise_schedule import NoiseSchedule, make_betas, zero_terminal_snr
from sdcore.schedulers.spacing import Spacing, variants

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
_ZERO_SNR: Config = {"rescale_betas_zero_snr": False}
_SIGMAS: Config = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}

# Each class's fields that change numbers, with their defaults.
CLASSES: Mapping[str, Config] = {
    "DDIMScheduler": {
        **_EVERY,
        **_ZERO_SNR,
        "timestep_spacing": "leading",
        "set_alpha_to_one": True,
        "thresholding": False,
    },
    "PNDMScheduler": {
        **_EVERY,
        "timestep_spacing": "leading",
        "set_alpha_to_one": False,
        "skip_prk_steps": False,
    },
    "EulerDiscreteScheduler": {
        **_EVERY,
        **_ZERO_SNR,
        **_SIGMAS,
        "sigma_min": None,
        "sigma_max": None,
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
    },
    "EulerAncestralDiscreteScheduler": {**_EVERY, **_ZERO_SNR},
    "HeunDiscreteScheduler": {**_EVERY, **_SIGMAS, "beta_start": 0.00085, "beta_end": 0.012},
    "DPMSolverMultistepScheduler": {
        **_EVERY,
        **_ZERO_SNR,
        **_SIGMAS,
        "use_lu_lambdas": False,
        "use_flow_sigmas": False,
        "thresholding": False,
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -float("inf"),
        "variance_type": None,
    },
}

# What is understood where not every value is. None and False mean the same: off.
_SUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "final_sigmas_type": ("zero", "sigma_min"),
    "skip_prk_steps": (True,),
    "thresholding": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "use_flow_sigmas": (False, None),
    "solver_order": (2,),
    "algorithm_type": ("dpmsolver++", "deis"),
    "solver_type": ("midpoint", "logrho", "bh1", "bh2"),
    "lambda_min_clipped": (-float("inf"), None),
    "variance_type": (None,),
}


def fields_for(class_name: str, config: Config) -> dict[str, Any]:
    """The values that diffusers' SD pipeline would run this class with, from this file.

    Raises InputError for a value that is not supported; none is silently ignored.
    """
    defaults = CLASSES[class_name]
    fields = {**defaults, **{key: config[key] for key in defaults if key in config}}
    own = config.get("_class_name", class_name) == class_name
    # A missing offset is corrected in the file's own class only; another takes its default, 0.
    fields["steps_offset"] = 1 if own or "steps_offset" in config else 0
    for key, value in fields.items():
        if key in _SUPPORTED and value not in _SUPPORTED[key]:
            known = " or ".join(repr(v) for v in _SUPPORTED[key] if v is not None)
            raise InputError(
                f"the scheduler config asks for {key} = {value!r}; {class_name} has only {known} "
                "here: change the field or choose another scheduler"
            )
    return fields


def noise_schedule_of(class_name: str, fields: Config) -> NoiseSchedule:
    """The training table. Raises InputError for an unknown beta schedule."""
    betas = (
        make_betas(
            fields["beta_schedule"],
            fields["beta_start"],
            fields["beta_end"],
            fields["num_train_timesteps"],
        )
        if fields["trained_betas"] is None
        else torch.tensor(fields["trained_betas"], dtype=torch.float32)
    )
    if not fields.get("rescale_betas_zero_snr"):
        return NoiseSchedule.from_betas(betas)
    # diffusers' sigma-space classes keep the last sigma finite (2^-24: sigma 4096), DDIM does not.
    floor = 0.0 if class_name == "DDIMScheduler" else 2.0**-24
    return NoiseSchedule.from_betas(zero_terminal_snr(betas), floor)


def spacing_of(class_name: str, fields: Config, name: str | None) -> Spacing:
    """The spacing of this name (None: the config's own) in the variant that this class runs."""
    base, offset = fields["timestep_spacing"], fields["steps_offset"]
    own: str = "karras" if fields.get("use_karras_sigmas") else base
    name = own if name is None else name
    if class_name in ("DDIMScheduler", "PNDMScheduler"):
        rules = variants(offset, drop=0, whole=True, base="")
        tail = "zero" if fields["set_alpha_to_one"] else "sigma_min"
        return Spacing(name, rules[name], tail, "unit_variance", "unit_variance")
    tail = fields.get("final_sigmas_type", "zero")
    if class_name == "DPMSolverMultistepScheduler":
        whole = fields["beta_schedule"] != "squaredcos_cap_v2"
        rules = variants(offset, drop=1, whole=True, base="", karras_whole=whole)
        return Spacing(name, rules[name], tail, "unit_variance", "unit_variance")
    within = base if "use_karras_sigmas" in fields else ""
    low, high = fields.get("sigma_min"), fields.get("sigma_max")
    rules = variants(offset, drop=0, whole=False, base=within, sigma_min=low, sigma_max=high)
    policy = base if name == "karras" else name
    return Spacing(name, rules[name], tail, "unit_variance" if policy == "leading" else "sigma")
