"""What is asked for, and what the names in it stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from sdcore.brownian import noise_named
from sdcore.engine import Lossy
from sdcore.errors import InputError
from sdcore.family import Family
from sdcore.guidance import (
    CFG,
    Guidance,
    accepted,
    resolve,
    scale_of,
)
from sdcore.hires import is_asked, second_of
from sdcore.inpainting import Canvas, Picture
from sdcore.interop import brought, is_foreign
from sdcore.models.freeu import FreeU
from sdcore.models.seamless import check_axes
from sdcore.networks import Networks
from sdcore.picture_options import Options, Words
from sdcore.process import FLOW, known_prediction_type
from sdcore.schedulers import Scheduler, Spacing
from sdcore.schedulers import resolve as resolve_scheduler
from sdcore.schedulers.config import SD15
from sdcore.schedulers.flow_config import prediction_type_of
from sdcore.starting import (
    canvas_of,
    open_latents,
)
from sdcore.written_forms import is_in_memory

MakesNoise = Callable[..., Any]  # (seeds, shape, device) -> a Noise with start()


@dataclass(frozen=True)
class Request(Words, Options):
    """What `StableDiffusion.prepare` takes: words, and options with the objects of a program."""

    image: Picture | None = field(default=None, kw_only=True)
    mask: Picture | None = field(default=None, kw_only=True)
    refiner: Networks | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Parts:
    """What the names in a request stand for."""

    scheduler: Scheduler
    guidance: Guidance
    noise: MakesNoise
    family: Family
    freeu: FreeU | None = None
    lossy: Lossy | None = None
    canvas: Canvas | None = None  # the picture to start from, as it was given
    latents: torch.Tensor | None = None  # the starting noise, where it is given
    tile: str | None = None
    refiner: Networks | None = None
    notes: tuple[str, ...] = ()  # a line for each thing that whoever draws should know
    second: Parts | None = None  # of the second pass


def parts_of(asked: Options, networks: Networks) -> Parts:
    """Everything that is asked for by a name, or brought as an object.

    asked: a Request, or the Settings of a picture. Raises InputError for what is unknown, or not
    for these networks.
    """
    _check_written(asked)
    _check_objects(asked)
    config = networks.scheduler_config
    family = networks.family
    said = asked.prediction_type
    said = None if said is None else known_prediction_type(said)
    if said == FLOW:
        config = {**(SD15 if config is None else config), "prediction_type": FLOW}
    chosen = brought(asked.scheduler)
    scheduler = resolve_scheduler(
        chosen, asked.spacing, asked.eta, config, asked.tail, family.corrects_offset
    )
    if isinstance(chosen, Scheduler) and said is None:
        _check_says_the_same(chosen, networks)
    if said is not None and (said == FLOW) != (scheduler.prediction_type == FLOW):
        raise InputError(f"{networks.name} was trained along a flow; it cannot say {said}")
    if said is not None:
        scheduler = replace(scheduler, prediction_type=said)
    noise = scheduler.entry.noise if asked.noise is None else asked.noise
    guidance = _guidance(asked, family)
    return Parts(
        scheduler=scheduler,
        guidance=guidance,
        noise=noise_named(noise) if isinstance(noise, str) else noise,
        family=family,
        freeu=FreeU.read(asked.freeu) if isinstance(asked.freeu, str) else asked.freeu,
        lossy=Lossy.read(asked.lossy) if isinstance(asked.lossy, str) else asked.lossy,
        canvas=canvas_of(asked, networks),
        latents=open_latents(asked.latents),
        tile=None if asked.tile is None else check_axes(asked.tile),
        refiner=_refiner(networks, asked.refiner),
        notes=(
            *_left_to(family, asked, networks.name),
            *_unused_cfg(family, asked, guidance),
            *filter(None, [scheduler.entry.caution]),
        ),
        second=parts_of(second_of(asked), networks) if is_asked(asked, networks) else None,
    )


def _check_says_the_same(scheduler: Scheduler, networks: Networks) -> None:
    """Raises InputError for a scheduler object made for another kind of network."""
    config = SD15 if networks.scheduler_config is None else networks.scheduler_config
    says = prediction_type_of(config)
    if scheduler.prediction_type != says:
        raise InputError(
            f"{networks.name} says {says}, and the scheduler {scheduler.name} is made for "
            f"{scheduler.prediction_type}: take one that is for {says}"
        )


def _check_written(asked: Options) -> None:
    """Raises InputError where a picture names an object of the program that drew it, and for an
    object that is neither a name nor what the name would stand for."""
    for each in fields(Options):
        value = getattr(asked, each.name)
        if is_in_memory(value):
            raise InputError(
                f"{each.name} is {value}: an object of the program that drew the picture, which "
                f"is not in it; name another {each.name}"
            )
    for name, instead in (("scheduler", "euler"), ("spacing", "sigmas:14.6,5,1,0")):
        value = getattr(asked, name)
        known = value is None or isinstance(value, str | Spacing | Scheduler)
        if known or callable(value) or (name == "scheduler" and is_foreign(value)):
            continue
        known = type(value).__name__ if name == "scheduler" else instead
        raise InputError(
            f"{name} is a name or a function, not {' '.join(repr(value).split())[:60]}: write "
            f'{name}="{known}"'
        )


_OBJECTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "noise": (callable, "a name, or a function (seeds, shape, device) -> noise"),
    "freeu": (lambda value: isinstance(value, FreeU), 'a text, "1.5,1.6,0.9,0.2", or a FreeU'),
    "lossy": (lambda value: isinstance(value, Lossy), 'a text, "deepcache:every=3", or a Lossy'),
}


def _check_objects(asked: Options) -> None:
    """Raises InputError for an object of another kind than the name of its option stands for."""
    for name, (is_one, what) in _OBJECTS.items():
        value = getattr(asked, name)
        if value is not None and not isinstance(value, str) and not is_one(value):
            raise InputError(f"{name} is {what}, and no {type(value).__name__}")


def _left_to(family: Family, asked: Options, name: str) -> tuple[str, ...]:
    """The line that tells where steps or scale are this family's, and not the usual ones."""
    taken = [f"{family.steps} steps"] * (asked.steps is None)
    taken += [f"cfg {family.cfg:g}"] * (asked.cfg is None)
    if not family.because or not taken:
        return ()
    return (f"{name} draws with {' and '.join(taken)} unless told: {family.because}",)


def _unused_cfg(family: Family, asked: Options, guidance: Guidance) -> tuple[str, ...]:
    """The line that tells where the guidance says a scale of its own, beside another cfg."""
    own = scale_of(guidance)
    if None in (asked.cfg, asked.guidance, own) or family.tells_scale or asked.cfg == own:
        return ()
    return (f"cfg {asked.cfg:g} is not used: the guidance says its own scale, {own:g}",)


def _guidance(asked: Options, family: Family) -> Guidance:
    scale = family.cfg if asked.cfg is None else float(asked.cfg)
    if isinstance(asked.guidance, str):
        return resolve(asked.guidance, family.scale(CFG(scale).scale))
    if asked.guidance is not None:
        accepted(asked.guidance)  # raises where it is none
        return asked.guidance
    return CFG(family.scale(CFG(scale).scale))  # the inner one raises for what is no scale


def _refiner(networks: Networks, refiner: Any) -> Networks | None:
    if refiner is None:
        return None
    if not isinstance(refiner, Networks):
        raise InputError(f"the refiner {refiner} is not loaded: give the model itself")
    if refiner.family.inpaints:
        raise InputError(f"{refiner.name} is an inpainting model, and refines nothing")
    latents = [(n.vae.config.latent_channels, n.vae.config.scaling_factor)
               for n in (networks, refiner)]  # fmt: skip
    if latents[0] != latents[1]:
        raise InputError(f"{refiner.name} works on other latents than {networks.name}")
    return refiner
