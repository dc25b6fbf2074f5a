"""What a family of models does otherwise: one value, asked by whoever would have to decide.

| family                     | is told beside the text   | a picture takes    |
|----------------------------|---------------------------|--------------------|
| SD 1.x, 2.x                | nothing                   | 20 steps, cfg 7.5  |
| SDXL (arXiv 2307.01952)    | three sizes               | the same           |
| its refiner                | two sizes and a score     | the same           |
| Turbo (arXiv 2311.17042)   | as the one it was made of | 4 steps, cfg 1     |
| latent consistency models  | the guidance scale        | 4 steps, cfg 8.5   |

Any of them repaints a given picture where its UNet has five more input channels.

A model may name a scale of its own, as the bundled one does: `"_guidance_scale": 2.5` in its
scheduler_config.json, where diffusers passes over what begins with an underscore. (A spacing too:
`schedulers.config.SPACING`.)

A family that is told other numbers of the picture is a row more in `models.unet_inputs.NUMBERS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdcore.errors import InputError
from sdcore.models import UNetConfig
from sdcore.models.unet_inputs import INPAINTING_CHANNELS, NUMBERS

SCALE = "_guidance_scale"  # the key in scheduler_config.json


@dataclass(frozen=True)
class Family:
    """What is told to a UNet of this kind, and what a picture of it takes."""

    told: tuple[str, ...] = ()  # settings that it is told as numbers
    scale_width: int | None = None  # of the guidance scale's embedding; None: it is asked twice
    inpaints: bool = False  # it is told a picture and a mask
    readers: int = 1  # text encoders
    steps: int = 20  # where the user names none
    cfg: float = 7.5
    because: str = ""  # where steps and cfg are not what every model gets

    @property
    def tells_scale(self) -> bool:
        """Whether the UNet is told the guidance scale, in place of being asked twice."""
        return self.scale_width is not None

    @property
    def corrects_offset(self) -> bool:
        """Whether its pipeline in diffusers sets steps_offset to 1, as SDXL's and LCM's do not."""
        return self.readers == 1 and not self.tells_scale

    def scale(self, cfg: float) -> float:
        """The scale of guidance in the loop; 1 where the UNet is told it, and asked once."""
        return 1.0 if self.tells_scale else cfg


def family_of(
    unet: UNetConfig, pooled: int, readers: int, scheduler: Mapping[str, Any] | None = None
) -> Family:
    """The family of a UNet with so many readers, the last of which pools to so many numbers.

    scheduler: the contents of scheduler_config.json. Raises InputError for a UNet that is told
    more, or other things, than is known of here.
    """
    inputs, drawn = unet.inputs, unet.out_channels
    if inputs.further and not inputs.repaints:
        raise InputError(
            f"a UNet of {unet.in_channels} input channels; those of {drawn} are drawn with, and "
            f"those of {drawn + INPAINTING_CHANNELS}, which repaint a picture"
        )
    steps, cfg, because = usual(unet, scheduler)
    return Family(
        told=_told(unet, pooled),
        scale_width=inputs.scale_width,
        inpaints=inputs.repaints,
        readers=readers,
        steps=steps,
        cfg=cfg,
        because=because,
    )


def _told(unet: UNetConfig, pooled: int) -> tuple[str, ...]:
    if not unet.inputs.added:
        return ()
    vector, each = unet.added_dims
    numbers = unet.inputs.numbers(pooled)
    if numbers is None:
        counts = " or ".join(str(row.count) for row in NUMBERS)
        raise InputError(
            f"the UNet is told a vector of {vector}, which is no pooled text of {pooled} with "
            f"{counts} numbers of {each} each, as SDXL's and its refiner's are"
        )
    return numbers.settings


def usual(unet: UNetConfig, scheduler: Mapping[str, Any] | None) -> tuple[int, float, str]:
    """Steps, guidance scale and the reason, of a model with this UNet and scheduler_config.json.

    SD-Turbo and SDXL-Turbo (Sauer et al. 2023) carry no mark of their own. What they alone combine
    is a trailing Euler, noise prediction and latents of 64: 1 to 4 steps, not guided. Latent
    consistency models (Luo et al. 2023, arXiv 2310.04378) are told the scale.
    """
    scheduler = {} if scheduler is None else scheduler
    steps, cfg, because = _known(unet, scheduler)
    return steps, _scale(scheduler[SCALE]) if SCALE in scheduler else cfg, because


def _known(unet: UNetConfig, scheduler: Mapping[str, Any]) -> tuple[int, float, str]:
    if unet.inputs.scale_width is not None:
        return 4, 8.5, "its UNet is told the guidance scale, as in latent consistency models"
    trailing = scheduler.get("timestep_spacing") == "trailing"
    euler = str(scheduler.get("_class_name")).startswith("Euler")
    noise = scheduler.get("prediction_type", "epsilon") == "epsilon"
    whole = scheduler.get("rescale_betas_zero_snr")
    if trailing and euler and noise and not whole and unet.sides == (64, 64):
        return 4, 1.0, "its scheduler's trailing steps are those of SD-Turbo and SDXL-Turbo"
    return Family.steps, Family.cfg, Family.because


def _scale(said: Any) -> float:
    if isinstance(said, bool) or not isinstance(said, int | float) or not math.isfinite(said):
        raise InputError(
            f"{SCALE} in scheduler_config.json is {said!r}; a number like 7.5 is meant"
        )
    return float(said)
