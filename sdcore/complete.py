"""A request, completed: the settings of every picture that is asked for, with nothing left open."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from sdcore.conditioning import read_towards, with_numbers
from sdcore.engine import choose
from sdcore.errors import InputError
from sdcore.extensions import Kind
from sdcore.guidance import (
    scale_of,
    written_parts,
)
from sdcore.hires import of_hires
from sdcore.inpainting import MAX_SIDE
from sdcore.interop.installed import named_by
from sdcore.networks import Networks
from sdcore.picture_options import Options, Source
from sdcore.prepare import freed, second_pass
from sdcore.prompts import check_grammar, prompt_parts, switches
from sdcore.prompts.grammar import check_length
from sdcore.request import Parts, Request, parts_of
from sdcore.schedulers import Scheduler
from sdcore.settings import Settings
from sdcore.starting import (
    check_start,
    first_step,
    of_start,
    read_variation,
)
from sdcore.trust import CODE
from sdcore.user_file import digest, digests
from sdcore.version import VERSION
from sdcore.watermark import check_watermark
from sdcore.written_forms import IN_MEMORY, is_in_memory, written_form


def complete(
    request: Request, networks: Networks, parts: Parts | None = None
) -> tuple[Settings, ...]:
    """The settings of every picture that is asked for, prompt by prompt, seed by seed.

    Raises InputError for whatever is out of range, or not for these networks.
    """
    parts = parts_of(request, networks) if parts is None else parts
    plain = {each.name: getattr(request, each.name) for each in fields(Options)}
    settled = {**_of_networks(freed(networks, parts)), **plain, **_of_parts(request, parts)}
    shared = Settings(
        prompt="", negative=None, seed=0, version=VERSION,
        **{**settled, **_sizes(request, networks, parts)},
    )  # fmt: skip
    experts = [networks] if parts.refiner is None else [networks, parts.refiner]
    shared = with_numbers(shared, [each.family for each in experts])
    shared = replace(shared, digests=_digests(shared, experts), packages=_packages(shared))
    plan = parts.scheduler.plan(shared.steps)  # raises where there is no room for so many
    check_start(shared)
    if shared.watermark is not None:
        check_watermark(shared.watermark, shared.width, shared.height)
    if shared.variation is not None:
        read_variation(shared.variation)
    first_step(shared, plan.sigmas)
    if parts.second is not None:
        second_pass(networks, shared, parts)  # raises for what is out of range in it
    prompts, negatives, seeds = _words(request, networks)
    parts.noise(tuple(seeds), (1, 1, 1), "cpu")  # raises for a seed that is none
    other = None if shared.towards is None else read_towards(shared.towards)[0]
    for text in {*prompts, *filter(None, (*negatives, other))}:
        check_length(text)
        if shared.grammar != "plain":
            for part, _ in prompt_parts(text, shared.grammar):
                switches(part, shared.steps)  # raises for what the grammar does not read
    return tuple(
        replace(shared, prompt=prompt, negative=negative, seed=seed)
        for prompt, negative in zip(prompts, negatives, strict=True)
        for seed in seeds
    )


def _of_networks(networks: Networks) -> dict[str, Any]:
    """What the settings say of the networks."""
    source = {each.name: getattr(networks.source, each.name) for each in fields(Source)}
    return {
        **source,
        "model": networks.name,
        "device": str(networks.device),
        "dtype": networks.precision,
        "memory": networks.memory,
        "engine": choose(networks.unet, networks.engine).engine,
        "ema": bool(networks.source.ema),
        "loras": tuple(overlay.spec for overlay in networks.loras),
        "embeddings": tuple(overlay.spec for overlay in networks.embeddings),
    }


def _of_parts(request: Request, parts: Parts) -> dict[str, Any]:
    """The written forms of what the request names, and what comes with it."""
    scheduler, spacing, guidance = parts.scheduler, parts.scheduler.spacing, request.guidance
    steps = next(n for n in (request.steps, spacing.steps, parts.family.steps) if n is not None)
    cfg = parts.family.cfg if request.cfg is None else float(request.cfg)
    if guidance is not None and not parts.family.tells_scale:
        ran = scale_of(parts.guidance)  # a guidance may say a scale of its own
        cfg = cfg if ran is None else ran
    refiner = parts.refiner
    return {
        "scheduler": written_form(scheduler),
        "spacing": written_form(spacing),
        "eta": scheduler.eta,
        "tail": None if request.tail is None else str(request.tail),
        "noise": written_form(scheduler.entry.noise if request.noise is None else request.noise),
        "prediction_type": scheduler.prediction_type,
        "steps": steps,
        "guidance": None if guidance is None else written_form(guidance),
        "cfg": cfg,
        "grammar": check_grammar("plain" if request.grammar is None else request.grammar),
        "clip_skip": 1 if request.clip_skip is None else request.clip_skip,
        "freeu": None if parts.freeu is None else str(parts.freeu),
        "lossy": None if parts.lossy is None else str(parts.lossy),
        "refiner": None if refiner is None else refiner.name,
        "handover": _handover(request.handover, refiner, scheduler),
        "latents": _latents(request.latents),
        **of_start(request, parts.canvas),
        **of_hires(request, None if parts.second is None else parts.second.scheduler),
    }


def _latents(given: Any) -> str | None:
    """The file of the starting noise, or that it was a program's; None: the seed's."""
    if isinstance(given, torch.Tensor):
        return f"latents {IN_MEMORY}"
    return None if given is None else str(given)


def _handover(sigma: float | None, refiner: Networks | None, scheduler: Scheduler) -> float | None:
    if refiner is None:
        if sigma is not None:
            raise InputError("a hand-over needs a refiner to hand over to")
        return None
    if sigma is None:
        schedule = scheduler.noise_schedule
        return schedule.sigma(len(schedule) / 5)  # t = 200 of 1000: SDXL's last fifth
    if not math.isfinite(sigma) or sigma < 0:
        raise InputError(f"the hand-over is a sigma of at least 0, not {sigma}")
    return float(sigma)


def _sizes(request: Request, networks: Networks, parts: Parts) -> dict[str, Any]:
    """Width and height, and the canvas of that size."""
    given = None if parts.canvas is None else parts.canvas.image
    width = _side("width", request.width, networks, None if given is None else given.width)
    height = _side("height", request.height, networks, None if given is None else given.height)
    if parts.canvas is None:
        return {"width": width, "height": height}
    canvas = parts.canvas.scaled(width, height)
    image, mask = canvas.names
    of_canvas = {"canvas": canvas.digest, "image_marks": canvas.marks}
    return {"width": width, "height": height, "image": image, "mask": mask, **of_canvas}


def _side(what: str, pixels: int | None, networks: Networks, given: int | None) -> int:
    """A picture's width or height; where none is asked for, the given picture's or the model's."""
    factor = networks.vae.config.factor
    if pixels is None:
        usual = networks.unet.config.sides[what == "width"] * factor
        pixels = usual if given is None else max(factor, given - given % factor)
    if not factor <= pixels <= MAX_SIDE:
        raise InputError(f"{what} {pixels} is out of range: {factor} to {MAX_SIDE} pixels")
    if pixels % factor:
        low = max(factor, pixels - pixels % factor)
        raise InputError(
            f"{what} {pixels} is no multiple of {factor}; the nearest are {low} and "
            f"{math.ceil(pixels / factor) * factor}"
        )
    return pixels


def _words(request: Request, networks: Networks) -> tuple[list[str], list[str | None], list[int]]:
    """The prompts, the negative prompt of each, and the seeds."""
    prompts = _texts("prompts", request.prompts)
    seeds = _seeds(request.seeds)
    if not prompts or not seeds:
        raise InputError("at least one prompt and one seed are needed")
    if request.negative is None:
        return prompts, [None if networks.zero_empty else ""] * len(prompts), seeds
    negatives = _texts("negative", request.negative)
    if isinstance(request.negative, str):
        negatives *= len(prompts)
    if len(negatives) != len(prompts):
        raise InputError(
            f"negative has {len(negatives)} texts for {len(prompts)} prompts: give one for all, "
            "or one for each"
        )
    return prompts, [*negatives], seeds


def _seeds(given: Any) -> list[int]:
    try:
        several: Iterable[Any] = (
            given if isinstance(given, Iterable) and getattr(given, "ndim", 1) else [given]
        )
        return [operator.index(seed) for seed in several]
    except TypeError:
        raise InputError(f"seeds are whole numbers, not {given!r:.80}") from None


def _texts(what: str, given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Iterable) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{what} must be a text or several, not {given!r:.80}")
    return list(texts)


def _digests(settings: Settings, experts: Sequence[Networks]) -> tuple[str, ...]:
    """ "<digest> <name>" of every file that the pictures will be made of."""
    of_code = digests(text for _, text in _written(settings))
    if settings.latents and not is_in_memory(settings.latents):
        of_code[settings.latents] = digest(settings.latents)
    of_weights = {name: digest for each in experts for name, digest in each.digests.items()}
    return tuple(f"{digest} {name}" for name, digest in {**of_weights, **of_code}.items())


def _packages(settings: Settings) -> tuple[str, ...]:
    """ "NAME VERSION" of the installed packages whose code will draw."""
    named = (named_by(kind, text) for kind, text in _written(settings))
    return tuple(dict.fromkeys(each.package for each in named if each is not None))


def _written(settings: Settings) -> Iterator[tuple[Kind, str]]:
    """What may be a file of code or a package's: its kind, and its written form."""
    for name, kind in CODE.items():
        text = getattr(settings, name)
        if text and not is_in_memory(text):
            parts = written_parts(text) if kind == "guidance" else [text]
            for part in parts:
                yield kind, part


def changed(old: Settings, new: Settings) -> list[str]:
    """The files under the same name in both that are not what they were when `old` was drawn."""
    digest = {name: digest for digest, _, name in (each.partition(" ") for each in new.digests)}
    names = [name for then, _, name in (each.partition(" ") for each in old.digests)
             if digest.get(name, then) != then]  # fmt: skip
    same = (old.image, old.mask, old.width, old.height) == (
        *(new.image, new.mask, new.width, new.height),
    )
    if same and old.canvas != new.canvas:
        names.append("the image or the mask")
    return names


def packages_changed(old: Settings, new: Settings) -> list[str]:
    """A line for each package whose code drew both, in another version."""
    now = {name: version for name, _, version in (each.rpartition(" ") for each in new.packages)}
    return [
        f"the package {name} was {then} and is {now[name]}"
        for name, _, then in (each.rpartition(" ") for each in old.packages)
        if now.get(name, then) != then
    ]
