"""Which grid a name means in each of diffusers' classes."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from sdcore.schedulers.spacing import sigmas as curves
from sdcore.schedulers.spacing import timesteps as grids
from sdcore.schedulers.spacing.plan import Rule

# Every name without a tool before it, and what it does.
SPACINGS: Mapping[str, str] = {
    "leading": "whole strides upwards from t = offset; leaves out the noisiest timesteps",
    "trailing": "strides downwards from the last timestep",
    "linspace": "evenly in t, both ends included",
    "normal": "evenly in t, fractional, log sigma interpolated (k-diffusion's own)",
    "simple": "strides downwards from the last timestep, cut to whole ones (ComfyUI)",
    "sgm_uniform": "evenly in t, the last timestep in and 0 left out (SGM)",
    "ddim_uniform": "leading with offset 1 (ComfyUI)",
    "karras": "evenly in sigma^(1/7) (Karras et al. 2022, eq. 5)",
    "exponential": "evenly in log sigma",
    "polyexponential": "a power of an even ramp in log sigma (k-diffusion; power 1)",
    "log_linear": "as exponential, but ends at the least sigma (diffusers' Euler)",
    "beta": "sigma at the quantiles of Beta(0.6, 0.6) (diffusers, A1111)",
    "beta_t": "t at the quantiles of Beta(0.6, 0.6) (ComfyUI)",
    "kl_optimal": "evenly in arctan sigma, then 0 (ComfyUI)",
    "ays": "Align Your Steps' optimised sigmas for SD 1.5",
    "ays_sdxl": "Align Your Steps' optimised sigmas for SDXL",
    "lcm": "a subset of the 50 timesteps that LCM and TCD were distilled on",
}
CURVES: Mapping[str, curves.Curve] = {
    "karras": curves.karras,
    "exponential": curves.exponential,
    "polyexponential": curves.polyexponential,
    "log_linear": curves.without_last(curves.exponential),
    "beta": curves.beta,
    "kl_optimal": curves.kl_optimal,
    "ays": curves.without_last(curves.align_your_steps(curves.AYS_SD15)),
    "ays_sdxl": curves.without_last(curves.align_your_steps(curves.AYS_SDXL)),
}


def variants(
    *,
    offset: int = 1,
    drop: int = 0,
    whole: bool = False,
    whole_curves: bool = False,
    base: str = "",
    last: int | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    origin: int = 50,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Rule]:
    """The rules by name, in one class's variant.

    whole: linspace has whole timesteps.
    offset, drop, last, origin, dtype: as leading, linspace and lcm take them.
    whole_curves: what `along` calls whole, for the grids that are laid over sigma.
    base: the name of the grid whose range karras, exponential and beta take, "" for the training
        table's; sigma_min and sigma_max override it.
    """
    rules: dict[str, Rule] = {
        "leading": partial(grids.leading, offset=offset, drop=drop, last=last),
        "trailing": partial(grids.trailing, last=last),
        "linspace": partial(grids.whole_linspace, drop=drop, last=last)
        if whole
        else partial(grids.linspace, dtype=dtype),
        "normal": grids.normal,
        "simple": grids.simple,
        "sgm_uniform": grids.sgm_uniform,
        "ddim_uniform": grids.leading,
        "beta_t": grids.beta_timesteps,
        "lcm": partial(grids.distilled, origin=origin),
    }
    ranged: dict[str, Any] = {
        "within": rules.get(base),
        "sigma_min": sigma_min,
        "sigma_max": sigma_max,
    }
    for name, curve in CURVES.items():
        limits = ranged if name in ("karras", "exponential", "beta") else {}
        rules[name] = partial(curves.along, curve=curve, whole=whole_curves, **limits)
    return {name: rules[name] for name in SPACINGS}
