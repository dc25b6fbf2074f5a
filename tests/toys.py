"""Stand-ins for a network, and diffusers' loop to compare with. No weights."""

import math
from unittest import mock

import torch
from torch import Tensor

from sdcore.denoiser import Denoiser
from sdcore.guidance import CFG
from sdcore.noise import SeededNoise
from sdcore.process import VariancePreserving
from sdcore.sampling import Prediction, State, sample
from sdcore.schedulers.config import SD15
from sdcore.schedulers.table import TABLE

SHAPE = (4, 8, 8)
SEEDS = (7, 0)
SD = {**SD15, "trained_betas": None}
# The schedulers that are a class of diffusers, and not only follow one's spacing.
CLASSES = {entry.name: entry.class_name for entry in TABLE if entry.class_name in entry.labels}


def wavy(x: Tensor, t, context=None, added=None) -> Tensor:
    """A network that is not linear in x, feels t to 1e-3, and keeps latents near unit size."""
    return 0.9 * x + 0.3 * torch.sin(3 * x + float(t) / 100)


def constant_eps(eps: Tensor):
    """The world where every solver must be exact: the model always returns the same eps."""
    return lambda x, sigma: Prediction(torch.add(x, eps, alpha=-sigma), eps)


def gaussian(x: Tensor, sigma: float, mean: float = 0.3, std: float = 0.5) -> Prediction:
    """The exact denoiser of pictures whose every value is N(mean, std^2)."""
    x0 = (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)
    return Prediction(x0, (x - x0) / sigma if sigma else torch.zeros_like(x))


def gaussian_flow(x: Tensor, sigma: float, sigma_next: float, mean: float = 0.3, std: float = 0.5):
    """The exact solution of the probability flow in that world."""
    ratio = math.sqrt((std**2 + sigma_next**2) / (std**2 + sigma**2))
    return mean + (x - mean) * ratio


def our_steps(scheduler, steps, model=wavy, seeds=SEEDS, start=0, x=None):
    """All steps of sdcore's loop with a stand-in network, and the plan."""
    plan = scheduler.plan(steps)
    noise = SeededNoise(seeds, SHAPE)
    told = {"cond": {"context": torch.zeros(len(seeds), 1, 1)}}
    process = VariancePreserving(plan, scheduler.prediction_type)
    denoise = Denoiser(model, process, told, CFG(1))
    x = noise.start() * plan.start_scale if x is None else x
    return list(sample(denoise, State(x, start), plan.sigmas, scheduler.solver, noise)), plan


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


def diffusers_latents(scheduler, steps, model=wavy, seeds=SEEDS, **options) -> Tensor:
    """What diffusers' loop ends with; options: eta, and start, x0 for image to image, dtype."""
    from scripts.reference import loop

    return loop(scheduler, steps, model, SHAPE, seeds, **options)
