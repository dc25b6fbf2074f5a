"""Whole runs with a stand-in for the network, by sdcore's loop and by diffusers'. No weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from sdcore.denoiser import Denoiser
from sdcore.guidance import CFG
from sdcore.noise import SeededNoise
from sdcore.process import VariancePreserving
from sdcore.sampling import State, sample
from sdcore.schedulers.config import SD15
from sdcore.schedulers.table import TABLE

SHAPE = (4, 8, 8)
SEEDS = (7, 0)
SD = {**SD15, "trained_betas": None}
# The schedulers that are a class of diffusers, and not only follow one's spacing.
CLASS_OF = {entry.name: entry.class_name for entry in TABLE if entry.class_name in entry.labels}


def wavy(x: Tensor, t, context=None, added=None) -> Tensor:
    """A network that is not linear in x, feels t to 1e-3, and keeps latents near unit size."""
    return 0.9 * x + 0.3 * torch.sin(3 * x + float(t) / 100)


def our_steps(scheduler, steps, model=wavy, seeds=SEEDS, start=0, x=None, state=None):
    """All steps of sdcore's loop with a stand-in network, and the plan. state: to go on from."""
    plan = scheduler.plan(steps)
    noise = SeededNoise(seeds, SHAPE)
    told = {"cond": {"context": torch.zeros(len(seeds), 1, 1)}}
    process = VariancePreserving(plan, scheduler.prediction_type)
    denoise = Denoiser(model, process, told, CFG(1))
    x = noise.start() * plan.start_scale if x is None else x
    state = State(x, start) if state is None else state
    return list(sample(denoise, state, plan.sigmas, scheduler.solver, noise)), plan


def our_latents(scheduler, steps, **options) -> Tensor:
    done, plan = our_steps(scheduler, steps, **options)
    return done[-1].x_next * plan.end_scale


def diffusers_scheduler(class_name, config=None, **fields):
    """diffusers' class from a config, or SD's training table and these fields: no steps set yet.

    Some constructors call set_timesteps(1000), which takes up to 2 s; every run calls it again.
    """
    import diffusers

    whole = getattr(diffusers, class_name)
    of_any = whole.set_timesteps
    with mock.patch.object(whole, "set_timesteps", lambda self, steps, *_: of_any(self, 2)):
        return whole.from_config({**SD, **fields} if config is None else config)


def reference(name, spacing=None, **fields):
    """diffusers' class of our scheduler of this name."""
    if spacing == "karras":
        fields["use_karras_sigmas"] = True
    elif spacing is not None:
        fields["timestep_spacing"] = spacing
    return diffusers_scheduler(CLASS_OF[name], **fields)


def weigh_in_float64(scheduler) -> None:
    """DEIS' closed forms cancel in diffusers' float32: its weights here from the same sigmas."""
    set_timesteps = scheduler.set_timesteps

    def in_float64(steps):
        set_timesteps(steps)
        scheduler.sigmas = scheduler.sigmas.double()

    scheduler.set_timesteps = in_float64


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The maximum absolute error, relative to the largest latent if that is above 1."""
    return (ours - theirs).abs().max().item() / max(1.0, theirs.abs().max().item())


def diffusers_latents(scheduler, steps, model=wavy, seeds=SEEDS, **options) -> Tensor:
    """What diffusers' loop ends with; options: eta, and start, x0 for image to image, dtype."""
    return loop(scheduler, steps, model, SHAPE, seeds, **options)


def loop(
    scheduler: Any,
    steps: int,
    model: Callable[[Tensor, Tensor], Tensor],
    shape: Sequence[int],
    seeds: Sequence[int],
    *,
    eta: float | None = None,
    start: int = 0,
    x0: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The latents [B,C,H,W] that a diffusers pipeline ends with, from a list of CPU generators.

    start > 0: image to image from x0 [B,C,H,W].
    """
    from diffusers.utils.torch_utils import randn_tensor

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    options: dict[str, Any] = {} if eta is None else {"eta": eta}
    if "generator" in signature(scheduler.step).parameters:
        options["generator"] = generators
    scheduler.set_timesteps(steps)
    noise = randn_tensor((len(seeds), *shape), generator=generators).to(dtype)
    timesteps = scheduler.timesteps[start * scheduler.order :]
    if start:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(start * scheduler.order)
        latents = scheduler.add_noise(x0, noise, timesteps[:1])
    else:
        latents = noise * scheduler.init_noise_sigma
    for t in timesteps:
        out = model(scheduler.scale_model_input(latents, t), t)
        latents = scheduler.step(out, t, latents, **options).prev_sample
    return latents
