"""scheduler_config.json: what a checkpoint asks for, and what another scheduler makes of it.

The rules are diffusers' (0.42.1): a field counts if the file itself contains it and the class
knows it; else the class's own default stands, also when a file that was written for another class
is read (`from_config`). SD's pipelines then correct two fields: steps_offset to 1, clip_sample to
False.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from sdcore.errors import InputError
from sdcore.schedulers.conventions import CONVENTIONS, FOREIGN, SAME_AS, Config, Conventions
from sdcore.schedulers.noise_schedule import NoiseSchedule, make_betas, zero_terminal_snr
from sdcore.schedulers.spacing import Spacing, Tool, variants

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
SPACING = "_spacing"  # a model's own, in a key that diffusers passes over
MOST_TIMESTEPS = 100_000  # of a training table; every published one has 1000

# What is understood where not every value is. None and False mean the same: off.
_SUPPORTED: Config = {
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete",),
    "final_sigmas_type": ("zero", "sigma_min"),
    "solver_order": (1, 2, 3),
    "predictor_order": (1, 2, 3, 4),
    "corrector_order": (1, 2, 3, 4),
    "predict_x0": (True, False),
    "solver_p": (None,),
    "tau_func": (None,),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
# Why a field's other values, or this one, are not, where a list of what is does not say it.
_REASONS: Config = {
    "sde-dpmsolver": "with eps held where noise is added, a picture that the network knows exactly "
    "ends with the wrong noise",
    "variance_type": "for networks that predict a variance beside the noise",
    "timestep_type": "for networks that are told log(sigma) / 4 in place of t",
    "solver_p": "a second scheduler inside the first",
    "tau_func": "a Python function",
}


def class_of(config: Config) -> str | None:
    """The class that wrote the file, by the name that its conventions have here; None: not told.

    Raises InputError for one whose networks were not trained on a table of betas.
    """
    name = config.get("_class_name")
    if not isinstance(name, str):
        return None
    for beginning, trained_on in FOREIGN.items():
        if name.startswith(beginning):
            raise InputError(
                f"the checkpoint's scheduler is {name[:80]}: its network was trained on "
                f"{trained_on}, and not on a table of betas, which is all that is drawn here"
            )
    return SAME_AS.get(name, name)


def fields_for(class_name: str, config: Config, corrected: bool = True) -> dict[str, Any]:
    """The values that diffusers' pipeline would run this class with, from this file.

    corrected: whether the pipeline sets steps_offset to 1, as SD's do; SDXL's and that of latent
    consistency models leave it. Raises InputError for a value that is not supported; none is
    silently ignored.
    """
    conventions = CONVENTIONS[class_name]
    defaults = conventions.fields
    fields = {**defaults, **{key: config[key] for key in defaults if key in config}}
    same_class = class_of(config) in (None, class_name)
    # A missing offset is corrected in the file's own class only; another takes its default, 0.
    if corrected:
        fields["steps_offset"] = 1 if same_class or "steps_offset" in config else 0
    for key, readings in conventions.readings.items():
        if isinstance(fields[key], str):
            fields[key] = readings.get(fields[key], fields[key])
    supported = supported_by(conventions)
    for key, value in fields.items():
        if not _is_like(value, defaults[key]):
            raise InputError(f"the scheduler config has {key} = {value!r:.80}: it cannot be that")
        if key in supported and value not in supported[key]:
            known = " or ".join(repr(v) for v in supported[key] if v is not None) or "null"
            reason = _REASONS.get(str(value), _REASONS.get(key))
            reason = f" ({reason})" if reason else ""
            raise InputError(
                f"the scheduler config asks for {key} = {value!r:.80}{reason}; {class_name} has "
                f"only {known} here: change the field or choose another scheduler"
            )
    _check_numbers(fields)
    return fields


def supported_by(conventions: Conventions) -> Config:
    """The values of each field, and solver's option, that has not every value."""
    return {**_SUPPORTED, **conventions.supported}


def _is_like(value: Any, default: Any) -> bool:
    """Whether a field may be of this type: numbers and texts where the class has them."""
    if type(default) is int:
        return type(value) is int and value >= 0
    if type(default) is float:
        if value is None:
            return default == -math.inf
        return type(value) in (int, float) and not math.isnan(value)
    if isinstance(default, list):
        return isinstance(value, Sequence) and all(type(item) is int for item in value)
    return not isinstance(default, str) or isinstance(value, str)


def _check_numbers(fields: Config) -> None:
    """Raises InputError for numbers from which no table and no grid can be made."""
    if fields["num_train_timesteps"] > MOST_TIMESTEPS:
        raise InputError(
            f"the scheduler config has num_train_timesteps = {fields['num_train_timesteps']}: at "
            f"most {MOST_TIMESTEPS} are read"
        )
    betas = fields["trained_betas"]
    if betas is not None:
        numbers = isinstance(betas, Sequence) and 0 < len(betas) <= MOST_TIMESTEPS
        if not numbers or not all(type(b) in (int, float) and 0 < b < 1 for b in betas):
            raise InputError(
                "the scheduler config has trained_betas that are not a list of numbers between 0 "
                f"and 1, at most {MOST_TIMESTEPS} of them"
            )
    for key in ("sigma_min", "sigma_max"):
        limit = fields.get(key)
        if limit is not None and not (type(limit) in (int, float) and 0 < limit < math.inf):
            raise InputError(f"the scheduler config has {key} = {limit!r:.80}: a sigma above 0")
    if fields.get("thresholding"):
        ratio, most = fields["dynamic_thresholding_ratio"], fields["sample_max_value"]
        if not 0 <= ratio <= 1:
            raise InputError(
                f"the scheduler config has dynamic_thresholding_ratio = {ratio}: it is 0 to 1"
            )
        if most < 1:
            raise InputError(
                f"the scheduler config has sample_max_value = {most}: x0 is kept within 1 to this, "
                "so it is at least 1"
            )


def method_of(conventions: Conventions, fields: Config) -> str | None:
    """Our name of the method that this class runs with these fields; None: it has but one.

    Raises InputError for DPM-Solver's eps form with final_sigmas_type "zero", as diffusers does.
    """
    if "skip_prk_steps" in fields:
        return "pndm" if fields["skip_prk_steps"] else "pndm_prk"
    algorithm = fields.get("algorithm_type")
    if algorithm == "dpmsolver" and fields["final_sigmas_type"] == "zero":
        raise InputError(
            "the scheduler config asks for algorithm_type = 'dpmsolver', which integrates eps "
            "over log sigma and cannot end at sigma 0: set final_sigmas_type = 'sigma_min', or "
            "choose dpm_2m or dpm_3m, whose step into 0 is Euler's"
        )
    if not conventions.methods:
        return None
    method = conventions.methods[str(algorithm), fields["solver_order"]]
    heun = method == "dpmpp_2m_sde" and fields["solver_type"] == "heun"
    return f"{method}_heun" if heun else method


def noise_schedule_of(
    conventions: Conventions, fields: Config, tool: Tool | None = None
) -> NoiseSchedule:
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
    elif conventions.form != "unit_variance":
        floor = 2.0**-24  # diffusers' own: sigma 4096
    else:
        # Theirs is 0, sigma infinite. What is well defined there (v, x0) is so at 2^24 too, to
        # 6e-8; what is not (eps) has to be refused.
        floor = 0.0 if fields["prediction_type"] == "epsilon" else 2.0**-48
    return replace(NoiseSchedule.from_betas(zero_terminal_snr(betas), floor), dtype=sigma_dtype)


def spacing_of(
    conventions: Conventions, fields: Config, schedule: NoiseSchedule, name: str | None
) -> Spacing:
    """The spacing of this name (None: the config's own) in the variant that this class runs."""
    name = _own_spacing(conventions, fields) if name is None else name
    base, offset = fields["timestep_spacing"], fields["steps_offset"]
    tail = conventions.tail or fields.get("final_sigmas_type", "zero")
    if conventions.form == "unit_variance":
        origin = fields.get("original_inference_steps", 50)
        rules = variants(offset=offset, whole=True, origin=origin)
        to_one = fields.get("set_alpha_to_one", True)
        tail = conventions.tail or ("zero" if to_one else "sigma_min")
        return Spacing(name, rules[name], tail, "unit_variance", "unit_variance")
    limits: dict[str, Any] = {
        "sigma_min": fields.get("sigma_min"),
        "sigma_max": fields.get("sigma_max"),
    }
    if conventions.form == "one_more":
        clip = fields.get("lambda_min_clipped")
        clip = -math.inf if clip is None else clip
        # The last timesteps, where lambda = -log sigma is below, are not used.
        last = sum(-log_sigma >= clip for log_sigma in schedule.log_sigmas)
        rules = variants(offset=offset, drop=1, whole=True, whole_curves=True, last=last, **limits)
        return Spacing(name, rules[name], tail, "unit_variance", "unit_variance")
    # Karras and its like take their range from the spaced grid: 11.0 to 0.041 with leading, N = 20.
    # So do they for Euler ancestral, which has none of them in diffusers: one name is one grid.
    within = "" if fields.get("interpolation_type") == "log_linear" else base
    rounded = name == "karras" and conventions.whole_karras
    rules = variants(
        offset=offset, base=within, whole_curves=rounded, dtype=conventions.dtype, **limits
    )
    ranged = name in ("karras", "exponential", "beta")
    unit = (base if ranged else name) in ("leading", "ddim_uniform")
    tail = "sigma_min" if name == "log_linear" else tail
    return Spacing(name, rules[name], tail, "unit_variance" if unit else "sigma")


def _own_spacing(conventions: Conventions, fields: Config) -> str:
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
    return conventions.spacing or fields["timestep_spacing"]
