"""Pictures whose settings leave nothing open, made ready to draw.

    parts = parts_of(request, networks)              # request.py: what the names stand for
    settings = complete(request, networks, parts)    # complete.py: one for each picture
    run = prepare(networks, settings, parts)         # for some of them, or for all

Whoever draws goes this way: `StableDiffusion.prepare`, and the command line for new pictures and
for old ones, whose `Settings` are a request as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import torch

from sdcore.adapters import unmatched_warnings
from sdcore.answering import over_parts
from sdcore.conditioning import Conditioner
from sdcore.devices import float32_as
from sdcore.engine import check_fits
from sdcore.errors import InputError
from sdcore.guidance import (
    Guidance,
    branch_names,
    sources_of,
)
from sdcore.hires import larger, second_beginning
from sdcore.inpainting import MAX_SIDE
from sdcore.models.freeu import with_freeu
from sdcore.models.seamless import seamless
from sdcore.networks import Networks
from sdcore.noise import OwnNoise, SeededNoise
from sdcore.request import Parts, parts_of
from sdcore.run import Run, SecondPass
from sdcore.sampling import Solver
from sdcore.schedulers import Plan
from sdcore.settings import Settings
from sdcore.stages import Stage, handed_over
from sdcore.starting import (
    Beginning,
    beginning,
    first_step,
)

Begin = Callable[[Plan, SeededNoise | OwnNoise], Beginning]


def prepare(networks: Networks, settings: Sequence[Settings], parts: Parts | None = None) -> Run:
    """A run of these pictures, which differ in words and seeds alone. Raises InputError."""
    first = settings[0]
    parts = parts_of(first, networks) if parts is None else parts
    networks = freed(networks, parts)
    canvas = None if parts.canvas is None else parts.canvas.scaled(first.width, first.height)

    def begin(plan: Plan, noise: SeededNoise | OwnNoise) -> Beginning:
        return beginning(networks, first, canvas, plan, noise, parts.latents)

    run = _assembled(networks, settings, parts, begin)
    then = None if parts.second is None else second_pass(networks, first, parts)
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


def second_pass(networks: Networks, settings: Settings, parts: Parts) -> SecondPass:
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


def freed(networks: Networks, parts: Parts) -> Networks:
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
