"""Steps and guidance scale where the user names none: some families come with their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdcore.models import UNetConfig


@dataclass(frozen=True)
class Defaults:
    """What to draw with, and the reason where it is not what every model gets."""

    steps: int = 20
    cfg: float = 7.5
    because: str = ""


def defaults_for(unet: UNetConfig, scheduler: Mapping[str, Any] | None) -> Defaults:
    """The published ones of a model with this UNet and this scheduler_config.json.

    SD-Turbo and SDXL-Turbo (Sauer et al. 2023, arXiv 2311.17042) carry no mark of their own. What
    they alone combine is a trailing Euler, noise prediction and latents of 64: 1 to 4 steps, not
    guided. Latent consistency models (Luo et al. 2023, arXiv 2310.04378) are told the scale.
    """
    if unet.time_cond_proj_dim is not None:
        return Defaults(
            4, 8.5, "its UNet is told the guidance scale, as in latent consistency models"
        )
    scheduler = {} if scheduler is None else scheduler
    trailing = scheduler.get("timestep_spacing") == "trailing"
    euler = str(scheduler.get("_class_name")).startswith("Euler")
    noise = scheduler.get("prediction_type", "epsilon") == "epsilon"
    whole = scheduler.get("rescale_betas_zero_snr")
    if trailing and euler and noise and not whole and unet.sides == (64, 64):
        return Defaults(
            4, 1.0, "its scheduler's trailing steps are those of SD-Turbo and SDXL-Turbo"
        )
    return Defaults()
