"""From a request to a run: what is asked for is completed first, then made ready.

    parts = parts_of(request, networks)                 # what the names stand for
    settings = complete(request, networks, parts)       # one for each picture; nothing is left open
    run = prepare(networks, settings, parts)            # for some of them, or for all

Whoever draws goes this way: `StableDiffusion.prepare`, and the command line for new pictures and
for old ones, whose `Settings` are a request as well.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch

from sdcore.adapters import unmatched_warnings
from sdcore.brownian import noise_named
from sdcore.conditioning import Conditioner, read_towards, with_numbers
from sdcore.devices import float32_as
from sdcore.engine import Lossy, check_fits, choose
from sdcore.errors import InputError
from sdcore.family import Family
from sdcore.guidance import (
    CFG,
    Guidance,
    accepted,
    branch_names,
    resolve,
    scale_of,
    sources_of,
    written_parts,
)
from sdcore.hires import is_asked, larger, of_hires, second_beginning, second_of
from sdcore.inpainting import MAX_SIDE, Canvas, Picture
from sdcore.interop import brought, is_foreign
from sdcore.models.freeu import FreeU, with_freeu
from sdcore.models.seamless import check_axes, seamless
from sdcore.networks import Networks
from sdcore.noise import OwnNoise, SeededNoise
from sdcore.process import FLOW, known_prediction_type
from sdcore.prompts import check_grammar, prompt_parts, switches
from sdcore.prompts.grammar import check_length
from sdcore.run import Run, SecondPass, over_parts, said_of
from sdcore.sampling import Solver
from sdcore.schedulers import Plan, Scheduler, Spacing
from sdcore.schedulers import resolve as resolve_scheduler
from sdcore.schedulers.config import SD15
from sdcore.schedulers.flow_config import prediction_type_of
from sdcore.settings import IN_MEMORY, Options, Settings, Source, Words
from sdcore.stages import Stage, handed_over
from sdcore.starting import (
    Beginning,
    beginning,
    canvas_of,
    check_start,
    first_step,
    of_start,
    open_latents,
    read_variation,
)
from sdcore.user_file import digest, digests
from sdcore.version import VERSION
from sdcore.watermark import check_watermark

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
    notes: tuple[str, ...] = ()  # what was left to the family, in one line
    second: Parts | None = None  # of the second pass


# --- what the names stand for --------------------------------------------------------------------


def parts_of(asked: Options, networks: Networks) -> Parts:
    """Everything that is asked for by a name, or brought as an object.

    asked: a Request, or the Settings of a picture. Raises InputError for what is unknown, or not
    for these networks.
    """
    _check_written(asked)
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
        notes=(*_left_to(family, asked, networks.name), *_unused_cfg(family, asked, guidance)),
        second=parts_of(second_of(asked), networks) if is_asked(asked, networks) else None,
    )


def _check_says_the_same(scheduler: Scheduler, networks: Networks) -> None:
    """Raises InputError for a scheduler object made for another kind of network."""
    config = SD15 if networks.scheduler_config is None else networks.scheduler_config
    says = prediction_type_of(config)
    if scheduler.prediction_type != says:
        raise InputError(
            f"{networks.name} says {says}, and the scheduler {scheduler.name} is made for "
            f"{scheduler.prediction_type}: make it with prediction_type = {says!r}"
        )


def _check_written(asked: Options) -> None:
    """Raises InputError where a picture names an object of the program that drew it, and for an
    object that is neither a name nor what the name would stand for."""
    for each in fields(Options):
        value = getattr(asked, each.name)
        if isinstance(value, str) and value.endswith(IN_MEMORY):
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


# --- nothing left open ---------------------------------------------------------------------------


def complete(
    request: Request, networks: Networks, parts: Parts | None = None
) -> tuple[Settings, ...]:
    """The settings of every picture that is asked for, prompt by prompt, seed by seed.

    Raises InputError for whatever is out of range, or not for these networks.
    """
    parts = parts_of(request, networks) if parts is None else parts
    plain = {each.name: getattr(request, each.name) for each in fields(Options)}
    settled = {**_of_networks(_freed(networks, parts)), **plain, **_of_parts(request, parts)}
    shared = Settings(
        prompt="", negative=None, seed=0, version=VERSION,
        **{**settled, **_sizes(request, networks, parts)},
    )  # fmt: skip
    experts = [networks] if parts.refiner is None else [networks, parts.refiner]
    shared = with_numbers(shared, [each.family for each in experts])
    shared = replace(shared, digests=_digests(shared, experts))
    plan = parts.scheduler.plan(shared.steps)  # raises where there is no room for so many
    check_start(shared)
    if shared.watermark is not None:
        check_watermark(shared.watermark, shared.width, shared.height)
    if shared.variation is not None:
        read_variation(shared.variation)
    first_step(shared, plan.sigmas)
    if parts.second is not None:
        _second_pass(networks, shared, parts)  # raises for what is out of range in it
    prompts, negatives, seeds = _words(request, networks)
    parts.noise(tuple(seeds), (1, 1, 1), "cpu")  # raises for a seed that is none
    other = None if shared.towards is None else read_towards(shared.towards)[0]
    for text in {*prompts, *filter(None, (*negatives, other))}:
        check_length(text)
        for part, _ in prompt_parts(text, shared.grammar):
            _ = shared.grammar != "plain" and switches(part, shared.steps)  # reads it
    return tuple(
        replace(shared, prompt=prompt, negative=negative, seed=seed)
        for prompt, negative in zip(prompts, negatives, strict=True)
        for seed in seeds
    )


def _freed(networks: Networks, parts: Parts) -> Networks:
    """The networks that draw: with the FreeU and the seams that were asked for.

    Raises InputError where they cannot be run as lossily as was asked.
    """
    if parts.freeu is not None:
        networks = replace(networks, unet=with_freeu(networks.unet, parts.freeu))
    if parts.tile is not None:
        names = ("unet", "vae")
        meeting = {name: seamless(networks.modules[name], parts.tile) for name in names}
        networks = networks.with_modules(meeting)
    if parts.lossy is not None:
        check_fits(parts.lossy, networks.unet, networks.engine)
    return networks


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
        "scheduler": scheduler.written or f"{scheduler.name} {IN_MEMORY}",
        "spacing": spacing.written or f"{spacing.name} {IN_MEMORY}",
        "eta": scheduler.eta,
        "tail": None if request.tail is None else str(request.tail),
        "noise": said_of(scheduler.entry.noise if request.noise is None else request.noise),
        "prediction_type": scheduler.prediction_type,
        "steps": steps,
        "guidance": None if guidance is None else said_of(guidance),
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
    return f"latents {IN_MEMORY}" if isinstance(given, torch.Tensor) else given and str(given)


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
    named = (
        *(settings.scheduler, settings.spacing, settings.noise),
        *(settings.hires_scheduler, settings.hires_spacing, settings.guidance),
    )
    *others, guidance = (None if text and text.endswith(IN_MEMORY) else text for text in named)
    of_code = digests([*others, *(written_parts(guidance) if guidance else ())])
    if settings.latents and not settings.latents.endswith(IN_MEMORY):
        of_code[settings.latents] = digest(settings.latents)
    of_weights = {name: digest for each in experts for name, digest in each.digests.items()}
    return tuple(f"{digest} {name}" for name, digest in {**of_weights, **of_code}.items())


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


# --- ready to draw -------------------------------------------------------------------------------


Begin = Callable[[Plan, SeededNoise | OwnNoise], Beginning]


def prepare(networks: Networks, settings: Sequence[Settings], parts: Parts | None = None) -> Run:
    """A run of these pictures, which differ in words and seeds alone. Raises InputError."""
    first = settings[0]
    parts = parts_of(first, networks) if parts is None else parts
    networks = _freed(networks, parts)
    canvas = None if parts.canvas is None else parts.canvas.scaled(first.width, first.height)

    def begin(plan: Plan, noise: SeededNoise | OwnNoise) -> Beginning:
        return beginning(networks, first, canvas, plan, noise, parts.latents)

    run = _assembled(networks, settings, parts, begin)
    then = None if parts.second is None else _second_pass(networks, first, parts)
    return replace(run, pasted=canvas if first.paste else None, then=then)


def _assembled(networks: Networks, settings: Sequence[Settings], parts: Parts, begin: Begin) -> Run:
    """One pass. networks: as they draw."""
    plan = parts.scheduler.plan(settings[0].steps)
    spoken = branch_names(over_parts(parts.guidance, settings), plan.sigmas)
    with float32_as(networks.tf32):
        stages = _stages(networks, settings, parts, spoken, plan.sigmas)
        begun = begin(plan, _noise(networks, settings, parts))
    if begun.extra is not None:
        stages = tuple(stage.told_also(extra=begun.extra) for stage in stages)
    return Run(
        networks=networks,
        settings=tuple(settings),
        scheduler=parts.scheduler,
        plan=plan,
        guidance=parts.guidance,
        noise=begun.noise,
        stages=stages,
        start=begun.state,
        solver=parts.scheduler.solver,
        sigmas=begun.sigmas,
        lossy=parts.lossy,
        kept=begun.kept,
        warnings=_warnings(networks, settings, parts, spoken),
    )


def _second_pass(networks: Networks, settings: Settings, parts: Parts) -> SecondPass:
    """What is to follow the first pass. Raises InputError for what is out of range in it."""
    second, factor = parts.second, networks.vae.config.factor
    if second is None:
        raise InputError("no second pass is asked for")
    large = larger(settings, factor)
    if max(large.width, large.height) > MAX_SIDE:
        size = f"{large.width}x{large.height}"
        raise InputError(f"the second pass would draw {size}: {MAX_SIDE} pixels at most")
    plan = second.scheduler.plan(large.steps)
    index, sigmas = first_step(large, plan.sigmas)
    return SecondPass(
        size=(large.height // factor, large.width // factor),
        plan=plan,
        sigmas=sigmas,
        index=index,
        taken=partial(_taken, parts, second),
        prepared=partial(_prepared_second, parts, second),
    )


def _taken(first: Parts, second: Parts, run: Run) -> tuple[Solver, Guidance]:
    """Solver and guidance of the second pass: its own, but for what was put into the run. Another
    scheduler for the second pass stays that."""
    put_in = run.settings[0].hires_scheduler is None and run.solver is not first.scheduler.solver
    return (
        run.solver if put_in else second.scheduler.solver,
        second.guidance if run.guidance is first.guidance else run.guidance,
    )


def _prepared_second(first: Parts, second: Parts, run: Run, latents: torch.Tensor | None) -> Run:
    """The second pass of a run. latents: [B,4,h,w], with which its first ended; None: zeros.

    What was put into the run is taken over, what lies around the model and answers too.
    """
    factor, upscaler = run.networks.vae.config.factor, run.settings[0].hires_upscaler
    settings = [larger(each, factor) for each in run.settings]
    solver, guidance = _taken(first, second, run)

    def begin(plan: Plan, noise: SeededNoise | OwnNoise) -> Beginning:
        name = "" if upscaler is None else upscaler
        return second_beginning(run.networks, settings[0], name, latents, plan, noise)

    large = _assembled(run.networks, settings, replace(second, guidance=guidance), begin)
    more = {"solver": solver, "around": run.around, "answers": run.answers}
    return large.as_said(settings=run.settings, **more)


def conditioner_of(networks: Networks) -> Conditioner:
    """Settings to what the UNet is told."""
    return Conditioner(networks.readers, networks.family, networks.zero_empty)


def _noise(
    networks: Networks, settings: Sequence[Settings], parts: Parts
) -> SeededNoise | OwnNoise:
    """Every picture's own stream of noise."""
    factor, first = networks.vae.config.factor, settings[0]
    shape = (networks.vae.config.latent_channels, first.height // factor, first.width // factor)
    seeds = tuple(each.seed for each in settings)
    noise = parts.noise(seeds, shape, networks.device)
    if isinstance(noise, SeededNoise):
        return noise
    return OwnNoise(parts.noise, seeds, shape, networks.device)


def _stages(
    networks: Networks,
    settings: Sequence[Settings],
    parts: Parts,
    branches: Iterable[str],
    sigmas: Sequence[float],
) -> tuple[Stage, ...]:
    """What the UNet is told on the way down, and which UNet it is."""
    first, names = settings[0], set(branches)
    sources = sources_of(parts.guidance)
    stages = conditioner_of(networks).stages(settings, names, sigmas, sources)
    if parts.refiner is not None and first.handover is not None:
        below = conditioner_of(parts.refiner).stages(settings, names, sigmas, sources)
        stages = handed_over(stages, below, first.handover, parts.refiner)
    return stages


def _warnings(
    networks: Networks, settings: Sequence[Settings], parts: Parts, branches: Iterable[str]
) -> tuple[str, ...]:
    """One line for each guess, each default of the family, each text that is read otherwise."""
    return (
        *networks.notes,
        *parts.notes,
        *unmatched_warnings(networks),
        *conditioner_of(networks).warnings(settings, set(branches)),
    )
