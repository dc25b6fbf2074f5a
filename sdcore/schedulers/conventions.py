"""The conventions of diffusers' scheduler classes (0.42.1): one value for each.

Which fields of a config change numbers and with what defaults, what is understood of them, and how
the class lays its grid. A class that is not here runs by no scheduler of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What sets one of diffusers' classes apart, whatever solver runs with it."""

    fields: Config  # those that change numbers, with their defaults
    supported: Config = field(default_factory=dict)  # values of a field, where not all are
    # A value that was written for another class, and what this class reads it as.
    readings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # "sigma": x is x0 + sigma eps; "unit_variance": in the network's form, as in DDIM;
    # "one_more": the latter, with one point more laid and t = 0 left out, as in DPM++.
    form: Literal["sigma", "unit_variance", "one_more"] = "sigma"
    spacing: str | None = None  # whatever the fields say
    tail: Literal["zero", "sigma_min"] | None = None  # whatever the fields say
    dtype: torch.dtype = torch.float32  # of linspace's fractional timesteps
    whole_karras: bool = False  # sends whole timesteps with Karras' sigmas
    keeps_eps: bool = False  # where x0 is thresholded
    # Our name of the method by (algorithm_type, solver_order), where the fields choose it.
    methods: Mapping[tuple[str, int], str] = field(default_factory=dict)


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
_DISTILLED_FIELDS: Config = {
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

_DPM_KINDS = ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++")
_DPM_READINGS = {
    "algorithm_type": {"deis": "dpmsolver++"},
    "solver_type": dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"),
}
_DISTILLED = Conventions(
    form="unit_variance", fields=_DISTILLED_FIELDS, spacing="lcm", tail="zero", keeps_eps=True
)
_KDPM2 = Conventions(fields={**_EVERY, **_SIGMAS, **_SD_BETAS}, whole_karras=True)

CONVENTIONS: Mapping[str, Conventions] = {
    "DDIMScheduler": Conventions(
        form="unit_variance",
        fields={
            **_EVERY,
            **_ZERO_SNR,
            **_THRESHOLD,
            "timestep_spacing": "leading",
            "set_alpha_to_one": True,
        },
        keeps_eps=True,
    ),
    "DDPMScheduler": Conventions(
        form="unit_variance",
        fields={
            **_EVERY,
            **_ZERO_SNR,
            **_THRESHOLD,
            "timestep_spacing": "leading",
            "variance_type": "fixed_small",
        },
    ),
    "PNDMScheduler": Conventions(
        form="unit_variance",
        fields={
            **_EVERY,
            "timestep_spacing": "leading",
            "set_alpha_to_one": False,
            "skip_prk_steps": False,
        },
    ),
    "LCMScheduler": _DISTILLED,  # always ends with x0
    "TCDScheduler": replace(_DISTILLED, tail="sigma_min"),  # and this one at t = 0
    "EulerDiscreteScheduler": Conventions(
        fields={
            **_EVERY,
            **_ZERO_SNR,
            **_SIGMAS,
            **_LIMITS,
            "interpolation_type": "linear",
            "timestep_type": "discrete",
            "final_sigmas_type": "zero",
        }
    ),
    "EulerAncestralDiscreteScheduler": Conventions(fields={**_EVERY, **_ZERO_SNR}),
    "HeunDiscreteScheduler": Conventions(fields={**_EVERY, **_SIGMAS, **_SD_BETAS}),
    "KDPM2DiscreteScheduler": _KDPM2,
    "KDPM2AncestralDiscreteScheduler": _KDPM2,
    "LMSDiscreteScheduler": Conventions(fields={**_EVERY, **_SIGMAS}),
    "DPMSolverSDEScheduler": Conventions(
        fields={**_EVERY, **_SIGMAS, **_SD_BETAS}, dtype=torch.float64
    ),
    "DPMSolverMultistepScheduler": Conventions(
        form="one_more",
        fields={
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
        supported={
            "algorithm_type": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++"),
            "solver_type": ("midpoint", "heun"),
        },
        readings=_DPM_READINGS,
        methods={
            ("dpmsolver++", 1): "ddim",
            ("dpmsolver++", 2): "dpmpp_2m",
            ("dpmsolver++", 3): "dpmpp_3m",
            ("dpmsolver", 1): "ddim",
            ("dpmsolver", 2): "dpm_2m",
            ("dpmsolver", 3): "dpm_3m",
            ("sde-dpmsolver++", 1): "euler_a",
            ("sde-dpmsolver++", 2): "dpmpp_2m_sde",
            ("sde-dpmsolver++", 3): "dpmpp_3m_sde",
        },
    ),
    "DPMSolverSinglestepScheduler": Conventions(
        form="one_more",
        fields={
            **_DPM,
            **_CLIPPED,
            "solver_order": 2,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "lower_order_final": False,
            "final_sigmas_type": "zero",
        },
        supported={
            "algorithm_type": ("dpmsolver++", "dpmsolver"),
            "solver_type": ("midpoint", "heun"),
        },
        readings=_DPM_READINGS,
        spacing="linspace",
    ),
    "UniPCMultistepScheduler": Conventions(
        form="one_more",
        fields={
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
        supported={"solver_type": ("bh1", "bh2")},
        readings={"solver_type": dict.fromkeys(("midpoint", "heun", "logrho"), "bh2")},
    ),
    # Where diffusers refuses a value (DEIS the stochastic ones, SA-Solver all of DPM-Solver's),
    # what the class has.
    "DEISMultistepScheduler": Conventions(
        form="one_more",
        fields={**_DPM, "solver_order": 2, "algorithm_type": "deis", "solver_type": "logrho"},
        supported={"algorithm_type": ("deis",), "solver_type": ("logrho",)},
        readings={
            "algorithm_type": dict.fromkeys(_DPM_KINDS, "deis"),
            "solver_type": dict.fromkeys(("midpoint", "heun", "bh1", "bh2"), "logrho"),
        },
        tail="sigma_min",
    ),
    "SASolverScheduler": Conventions(
        form="one_more",
        fields={
            **_DPM,
            **_CLIPPED,
            "predictor_order": 2,
            "corrector_order": 2,
            "tau_func": None,
            "algorithm_type": "data_prediction",
        },
        supported={"algorithm_type": ("data_prediction", "noise_prediction")},
        readings={"algorithm_type": dict.fromkeys((*_DPM_KINDS, "deis"), "data_prediction")},
        tail="sigma_min",
    ),
}

# Classes that read the same file and lay the same grid; the inverse ones lay it upwards.
SAME_AS: Mapping[str, str] = {
    "DDIMParallelScheduler": "DDIMScheduler",
    "DDPMParallelScheduler": "DDPMScheduler",
    "DDIMInverseScheduler": "DDIMScheduler",
    "DPMSolverMultistepInverseScheduler": "DPMSolverMultistepScheduler",
}
INVERSE = tuple(name for name in SAME_AS if name.endswith("InverseScheduler"))

# How the names of classes begin whose networks were trained on something else than a table of
# betas, and on what.
FOREIGN: Mapping[str, str] = {
    "EDM": "continuous sigmas, which it is told as log(sigma) / 4 (EDM)",
    "CosineDPM": "continuous sigmas (EDM)",
    "KarrasVe": "continuous sigmas (EDM)",
    "CMStochastic": "continuous sigmas (a consistency model of EDM)",
    "ScoreSde": "a continuous process (score SDE)",
    "FlowMatchLCM": "the straight path, distilled to a consistency model",
    "VQDiffusion": "discrete tokens",
    "Amused": "discrete tokens",
    "UnCLIP": "a variance that it predicts (unCLIP)",
    "DDPMWuerstchen": "a process without timesteps (Wuerstchen)",
}
