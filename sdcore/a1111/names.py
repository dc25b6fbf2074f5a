"""What A1111's interface calls samplers, schedules and upscalers, and numbers in its text."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from sdcore.errors import InputError

SAMPLERS = {  # our solvers by its labels
    "ddim": "DDIM",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "dpm_adaptive": "DPM adaptive",
    "dpm_fast": "DPM fast",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_2s_a": "DPM++ 2S a",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "lcm": "LCM",
    "lms": "LMS",
    "pndm": "PLMS",
    "restart": "Restart",
    "unipc": "UniPC",
}
SCHEDULES = {  # our spacings by its names
    "ays": "Align Your Steps",
    "beta": "Beta",
    "ddim_uniform": "DDIM",
    "exponential": "Exponential",
    "karras": "Karras",
    "kl_optimal": "KL Optimal",
    "linspace": "Uniform",
    "normal": "Uniform",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
}
UPSCALERS = {  # of a second pass, ours by its names
    "nearest": "Latent (nearest)",
    "nearest-exact": "Latent (nearest-exact)",
    "bilinear": "Latent",
    "bicubic": "Latent (bicubic)",
    "bilinear-antialiased": "Latent (antialiased)",
    "bicubic-antialiased": "Latent (bicubic antialiased)",
    "lanczos": "Lanczos",
}


def bare(name: str) -> str:
    """The last part of a path or hub id, without the ending of a file of weights.

    >>> bare("/home/somebody/models/dream-1.5.safetensors")
    'dream-1.5'
    """
    last = PurePath(name.replace("\\", "/")).name
    for ending in (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".py"):
        last = last.removesuffix(ending)
    return last


def number(name: str, text: str, kind: type) -> Any:
    """The number that a field holds. Raises InputError, naming the field, where it is none."""
    try:
        return kind(text)
    except (ValueError, OverflowError):
        raise InputError(f"{name}: {text!r} is no number") from None
