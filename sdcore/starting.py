"""Where the loop begins: at pure noise, or in the middle, at a picture with noise.

With noise of level sigma a picture keeps what is larger than it; the steps left draw the rest anew
(SDEdit, Meng et al. 2022, arXiv 2108.01073).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sdcore.errors import InputError, unknown
from sdcore.inpainting import Canvas, Kept, open_canvas
from sdcore.networks import Networks
from sdcore.noise import OwnNoise, SeededNoise, slerp, slerp_columns
from sdcore.paths import path_of
from sdcore.picture_options import Options
from sdcore.sampling import State
from sdcore.schedulers import Plan
from sdcore.settings import Settings

STRENGTH = 0.8  # of a picture to start from, where none is said; as in diffusers
STARTS = ("strength", "start_sigma", "start_step")
COLUMNS = ":columns"  # behind a variation: as A1111's interface draws it
POSTERIORS = ("sample", "mode")


def canvas_of(asked: Options, networks: Networks) -> Canvas | None:
    """The picture that is asked for, as it was given; None where there is none.

    Raises InputError for what is no picture, and for what is asked of a picture that is not given.
    """
    masked = asked.mask is not None or asked.extend is not None
    if networks.family.inpaints and not (asked.image is not None and masked):
        raise InputError(f"{networks.name} repaints a given picture: give it an image and a mask")
    if asked.image is None:
        if masked:
            raise InputError("a mask, or what to extend, needs an image")
        return None
    if not masked and (asked.mask_blur or asked.paste):
        name = "mask_blur" if asked.mask_blur else "paste"
        raise InputError(f"{name} is for a picture with a mask: give one")
    fit = "crop" if asked.fit is None else asked.fit
    blur = 0.0 if asked.mask_blur is None else float(asked.mask_blur)
    return open_canvas(asked.image, asked.mask, fit, blur, asked.extend)


def of_start(asked: Options, canvas: Canvas | None) -> dict[str, float | str | bool | None]:
    """What the settings say of where the loop begins. canvas: as it was given."""
    posterior = "sample" if asked.posterior is None else asked.posterior
    if posterior not in POSTERIORS:
        raise unknown("posterior", posterior, POSTERIORS)
    none = canvas is not None and canvas.mask is None and not _given(asked)
    return {
        "strength": STRENGTH if none else asked.strength,
        "fit": "crop" if asked.fit is None else asked.fit,
        "posterior": posterior,
        "mask_blur": 0.0 if asked.mask_blur is None else float(asked.mask_blur),
        "paste": bool(asked.paste),
    }


def check_start(settings: Options) -> None:
    """Raises InputError for two answers to where the loop begins, and for one without a picture."""
    given = [f"--{name.replace('_', '-')}" for name in _given(settings)]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} both say where to start: give one")
    if given and settings.image is None:
        raise InputError(f"{given[0]} is for starting from a picture: give one with --image")


def first_step(settings: Settings, sigmas: Sequence[float]) -> tuple[int, tuple[float, ...]]:
    """The index of the step to begin with, and the sigmas in which it counts.

    strength: of N steps the last int(N * strength) are run, as in diffusers.
    start_sigma: the level itself, with the sigmas below it.
    start_step: that many steps are left out.

    Raises InputError where that leaves no step.
    """
    steps, sigmas = len(sigmas) - 1, tuple(sigmas)
    if (strength := settings.strength) is not None:
        if not 0 < strength <= 1:
            raise InputError(f"strength {strength:g} is out of range: above 0, up to 1")
        left = min(int(steps * strength), steps)
        if left < 1:
            raise InputError(
                f"a strength of {strength:g} leaves none of {steps} steps: at least "
                f"{math.ceil(1000 / steps) / 1000:g}, or more steps"
            )
        return steps - left, sigmas
    if (start := settings.start_step) is not None:
        if not 0 <= start < steps:
            raise InputError(f"start_step {start} leaves no step of {steps}: 0 to {steps - 1}")
        return start, sigmas
    if (sigma := settings.start_sigma) is not None:
        if not sigmas[-1] < sigma <= sigmas[0]:
            raise InputError(
                f"start_sigma {sigma:g} is out of range: above {sigmas[-1]:g}, up to {sigmas[0]:g}"
            )
        return 0, (sigma, *(s for s in sigmas if s < sigma))
    return 0, sigmas


def steps_run(settings: Settings, plan: Plan) -> int:
    """How many steps are run of those that were asked for."""
    index, sigmas = first_step(settings, plan.sigmas)
    return len(sigmas) - 1 - index


def from_noise(settings: Settings) -> bool:
    """Whether the loop begins at noise alone: without a picture; and with one of which a part is
    repainted, where nothing or strength 1 is asked for, as in diffusers."""
    if settings.image is None:
        return True
    masked = settings.mask is not None or settings.extend is not None
    return masked and _given(settings) in ({}, {"strength": 1.0})


@dataclass(frozen=True)
class Beginning:
    """Where the loop begins, and what is kept of a picture on its way."""

    state: State
    sigmas: tuple[float, ...]
    noise: SeededNoise | OwnNoise  # whose first draws are spent
    kept: Kept | None  # of a picture of which a part is repainted
    extra: torch.Tensor | None  # [B,5,h,w] the further input channels of an inpainting UNet


def beginning(
    networks: Networks,
    settings: Settings,
    canvas: Canvas | None,
    plan: Plan,
    noise: SeededNoise | OwnNoise,
    given: torch.Tensor | None = None,
) -> Beginning:
    """canvas: of the picture's size. noise: of which nothing is spent. given: the starting noise.

    Raises InputError.
    """
    index, sigmas = first_step(settings, plan.sigmas)
    pure = from_noise(settings)
    if canvas is None:
        start = first_noise(settings, noise, given)
        return Beginning(State(start * plan.start_scale), sigmas, noise, None, None)
    told = networks.family.inpaints
    draws = _draws(settings, told, pure, canvas.mask is not None)
    noise = replace(noise, spent=len(draws), begin=draws.index("start"))
    start, latents, kept = first_noise(settings, noise, given), None, None
    if not (told and pure):
        drawn = noise.stream(draws.index("posterior")) if "posterior" in draws else start * 0
        latents = canvas.latents(networks.vae, drawn)
    x = start * plan.start_scale if pure or latents is None else latents + sigmas[index] * start
    if canvas.mask is not None and not told and latents is not None:
        share = canvas.share(x.shape[-2:], x.device)
        kept = Kept(share, latents, start, sigmas[0] if pure else None)
    extra = canvas.channels(networks.vae, noise.stream(draws.index("masked"))) if told else None
    return Beginning(State(x, index), sigmas, noise, kept, extra)


def first_noise(
    settings: Settings, noise: SeededNoise | OwnNoise, given: torch.Tensor | None
) -> torch.Tensor:
    """The starting noise [B,4,h,w]: the seeds', or what is given; on the way to another seed's."""
    start = noise.start()
    if given is not None:
        if given.shape[1:] != start.shape[1:] or len(given) != 1:
            raise InputError(
                f"the latents are {list(given.shape)}: a picture of this size begins with "
                f"{[1, *start.shape[1:]]}"
            )
        start = given.to(start).expand_as(start)
    if settings.variation is None:
        return start
    seed, share, columns = read_variation(settings.variation)
    other = replace(noise, seeds=(seed,) * len(noise.seeds)).start()
    return (slerp_columns if columns else slerp)(start, other, share)


def read_variation(text: str) -> tuple[int, float, bool]:
    """Seed, share, and whether each column has an arc of its own. Raises InputError.

    >>> read_variation("5:0.2"), read_variation("5:0.2:columns")
    ((5, 0.2, False), (5, 0.2, True))
    """
    seed, _, share = text.removesuffix(COLUMNS).partition(":")
    try:
        part = float(share)
        if not 0 <= part <= 1:
            raise ValueError
        return int(seed), part, text.endswith(COLUMNS)
    except ValueError:
        raise InputError(
            f"a variation is another seed and a share of 0 to 1, like 5:0.2, not {text!r}"
        ) from None


def open_latents(given: object) -> torch.Tensor | None:
    """A tensor as it is, or the one in a safetensors file. Raises InputError."""
    if given is None or isinstance(given, torch.Tensor):
        latents = given
    elif not isinstance(given, str | PathLike):
        raise InputError(
            f"latents are a tensor, or a file of one, and no {type(given).__name__}: "
            "torch.from_numpy makes a tensor of an array"
        )
    else:
        place = path_of(given)
        try:
            tensors = load_file(place)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{place} cannot be read: {error}") from None
        if len(tensors) != 1:
            raise InputError(f"{place} holds {len(tensors)} tensors, and not one of latents")
        latents = next(iter(tensors.values()))
    if latents is not None and (latents.dim() != 4 or not latents.is_floating_point()):
        raise InputError(f"the latents are {latents.dtype} of {list(latents.shape)}, not [1,4,h,w]")
    return latents


def _draws(settings: Settings, told: bool, pure: bool, masked: bool) -> list[str]:
    """What is drawn before the loop, in diffusers' order.

    Its inpainting encodes the masked picture also for a UNet that is not told of it.
    """
    sampled = settings.posterior == "sample" and not (told and pure)
    return ["posterior"] * sampled + ["start"] + ["masked"] * (told or (masked and sampled))


def _given(settings: Options) -> dict[str, float]:
    values = {name: getattr(settings, name) for name in STARTS}
    return {name: value for name, value in values.items() if value is not None}
