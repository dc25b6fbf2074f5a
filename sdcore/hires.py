"""A second pass over the same pictures, larger.

A model composes well at the size that it was trained at, and draws details at larger ones. So the
first pass draws the picture, which is then enlarged and given noise of a level between: the steps
below that draw the rest anew, as from any other picture (SDEdit, Meng et al. 2022, arXiv
2108.01073). A1111's interface calls this "Hires. fix".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcore.errors import InputError, unknown
from sdcore.inpainting import Canvas
from sdcore.networks import Networks
from sdcore.noise import OwnNoise, SeededNoise
from sdcore.picture_options import Options, Size
from sdcore.sampling import State
from sdcore.schedulers import Plan, Scheduler
from sdcore.settings import LISTS, Settings
from sdcore.starting import Beginning, first_noise, first_step
from sdcore.written_forms import IN_MEMORY, written_form

STRENGTH = 0.7  # where none is said; as in A1111's interface
LATENT: dict[str, dict[str, Any]] = {  # torch.nn.functional.interpolate's arguments
    "nearest": {"mode": "nearest"},
    "nearest-exact": {"mode": "nearest-exact"},
    "bilinear": {"mode": "bilinear"},
    "bicubic": {"mode": "bicubic"},
    "bilinear-antialiased": {"mode": "bilinear", "antialias": True},
    "bicubic-antialiased": {"mode": "bicubic", "antialias": True},
}
PIXELS = ("lanczos",)
NAMES = ("hires_upscaler", "hires_strength", "hires_steps", "hires_scheduler", "hires_spacing",
         "hires_cfg")  # fmt: skip

O = TypeVar("O", bound=Options)  # noqa: E741


def is_asked(asked: Options, networks: Networks) -> bool:
    """Whether a second pass is asked for. Raises InputError for one that cannot be drawn."""
    if asked.hires is None:
        for name in NAMES:
            if getattr(asked, name) is not None:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} is for a second pass: give its scale, --hires 2")
        return False
    if not (math.isfinite(asked.hires) and asked.hires >= 1):
        raise InputError(f"hires is a factor of at least 1, which is off, not {asked.hires:g}")
    if asked.hires == 1:
        return False
    if networks.family.inpaints or asked.mask is not None or asked.extend is not None:
        raise InputError("a second pass draws the whole picture anew: leave out mask and extend")
    return True


def of_hires(asked: Options, scheduler: Scheduler | None) -> dict[str, Any]:
    """What the settings say of the second pass. scheduler: its own; None: there is no second pass.

    Where none is said, scheduler, steps and scale are those of the first: None. Raises InputError.
    """
    if scheduler is None:
        return {"hires": None, **dict.fromkeys(NAMES)}
    upscaler = "bilinear" if asked.hires_upscaler is None else asked.hires_upscaler
    if upscaler not in (*LATENT, *PIXELS):
        raise unknown("hires_upscaler", upscaler, (*LATENT, *PIXELS))
    strength = STRENGTH if asked.hires_strength is None else asked.hires_strength
    if not 0 < strength <= 1:
        raise InputError(f"hires_strength {strength:g} is out of range: above 0, up to 1")
    other, spacing = asked.hires_scheduler is not None, scheduler.spacing
    spaced = other or asked.hires_spacing is not None
    of_list = asked.hires_steps is None and str(asked.hires_spacing).startswith(LISTS)
    return {
        "hires_upscaler": upscaler,
        "hires_strength": strength,
        "hires_steps": spacing.steps if of_list else asked.hires_steps,
        "hires_scheduler": written_form(scheduler) if other else None,
        "hires_spacing": written_form(spacing) if spaced else None,
    }


def second_of(asked: O) -> O:
    """The options of the second pass, as those of a picture that is drawn in one."""
    other = asked.hires_scheduler is not None
    spaced = other or asked.hires_spacing is not None
    listed = str(asked.hires_spacing).startswith(LISTS)

    def pick(own: Any, first: Any, another: bool = False) -> Any:
        return None if another and own is None else first if own is None else own

    return replace(
        asked,
        scheduler=pick(asked.hires_scheduler, asked.scheduler),
        spacing=pick(asked.hires_spacing, asked.spacing, other),
        steps=pick(asked.hires_steps, asked.steps, listed),
        cfg=pick(asked.hires_cfg, asked.cfg),
        tail=pick(None, asked.tail, spaced),
        eta=pick(None, asked.eta, other),
        noise=pick(None, asked.noise, other),
        strength=STRENGTH if asked.hires_strength is None else asked.hires_strength,
        hires=None,
        **dict.fromkeys((*NAMES, "start_sigma", "start_step", "image", "latents", "paste")),
    )


def size_of(settings: Settings, factor: int) -> Size:
    """Width and height of the second pass in pixels, down to multiples of the VAE's factor."""
    scale = 1.0 if settings.hires is None else settings.hires
    width, height = (
        int(side * scale) // factor * factor for side in (settings.width, settings.height)
    )
    return width, height


def larger(settings: Settings, factor: int) -> Settings:
    """The settings of the second pass, as those of a picture that is drawn in one.

    What SDXL is told of the picture's size is the second pass's, unless another was given.
    """
    old, new = (settings.width, settings.height), size_of(settings, factor)
    if new == old:
        raise InputError(
            f"hires {settings.hires:g} leaves {old[0]}x{old[1]} as it is: take a larger factor"
        )
    told = {name: new for name in ("original_size", "target_size")
            if getattr(settings, name) == old}  # fmt: skip
    return replace(second_of(settings), width=new[0], height=new[1], **told)


def upscaled(latents: Tensor, size: Sequence[int], upscaler: str) -> Tensor:
    """Latents [B,4,h,w] at another size, (h, w), picture by picture.

    Raises InputError for what is no upscaler of latents.
    """
    if upscaler not in LATENT:
        raise unknown("upscaler of latents", upscaler, LATENT)
    rows = [F.interpolate(row[None], size=tuple(size), **LATENT[upscaler]) for row in latents]
    return torch.cat(rows)


def second_beginning(
    networks: Networks,
    settings: Settings,
    upscaler: str,
    latents: Tensor | None,
    plan: Plan,
    noise: SeededNoise | OwnNoise,
) -> Beginning:
    """Where the second pass begins: at the first's latents, enlarged, with noise.

    settings: of the second pass, by `larger`. latents: [B,4,h,w] of unit variance; None: zeros.
    noise: of the second pass's size, of which nothing is spent.
    """
    index, sigmas = first_step(settings, plan.sigmas)
    sampled = upscaler in PIXELS and settings.posterior == "sample"
    noise = replace(noise, spent=1 + sampled, begin=int(sampled))  # the posterior's comes first
    start = first_noise(settings, noise, None)
    if latents is None:
        return Beginning(State(start * 0, index), sigmas, noise, None, None)
    if upscaler in PIXELS:
        drawn = noise.stream(0) if sampled else start * 0
        large = _through_pixels(networks, latents, (settings.width, settings.height), drawn)
    else:
        large = upscaled(latents.to(start), start.shape[-2:], upscaler)
    return Beginning(State(large + sigmas[index] * start, index), sigmas, noise, None, None)


def _through_pixels(networks: Networks, latents: Tensor, size: Size, drawn: Tensor) -> Tensor:
    """The latents of the pictures, enlarged by Lanczos' kernel. drawn: for the VAE's posterior."""
    from PIL.Image import Resampling

    pictures = [each.resize(size, Resampling.LANCZOS) for each in networks.decode(latents)]
    canvases = [Canvas(each, None, (IN_MEMORY, None)) for each in pictures]
    rows = [canvas.latents(networks.vae, drawn[i : i + 1]) for i, canvas in enumerate(canvases)]
    return torch.cat(rows)
