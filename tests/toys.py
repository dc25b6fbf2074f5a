"""Stand-ins for a network, and diffusers' loop to compare with. No weights."""

import math
from inspect import signature

import torch
from torch import Tensor

from sdcore.denoiser import Denoiser
from sdcore.guidance import CFG
from sdcore.noise import SeededNoise
from sdcore.sampling import Prediction, State, sample

SHAPE = (4, 8, 8)
SEEDS = (7, 0)
SD = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
    "trained_betas": None,
}
CLASSES = {
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
}


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
    context = torch.zeros(len(seeds), 1, 1)
    denoise = Denoiser(model, plan.timestep, {"cond": context}, CFG(1), scheduler.prediction_type)
    x = noise.start() * plan.start_scale if x is None else x
    return list(sample(denoise, State(x, start), plan.sigmas, scheduler.solver, noise)), plan


def our_latents(scheduler, steps, **options) -> Tensor:
    done, plan = our_steps(scheduler, steps, **options)
    return done[-1].x_next * plan.end_scale


def diffusers_latents(
    scheduler, steps, model=wavy, seeds=SEEDS, start=0, x0=None, eta=None, dtype=torch.float32
):
    """The latents that diffusers' pipelines end with, drawing from a list of CPU generators.

    start > 0: image to image from x0.
    """
    from diffusers.utils.torch_utils import randn_tensor

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    extra = {"generator": generators} if "generator" in signature(scheduler.step).parameters else {}
    if eta is not None:
        extra["eta"] = eta
    scheduler.set_timesteps(steps)
    noise = randn_tensor((len(seeds), *SHAPE), generator=generators).to(dtype)
    timesteps = scheduler.timesteps[start * scheduler.order :]
    if start:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(start * scheduler.order)
        latents = scheduler.add_noise(x0, noise, timesteps[:1])
    else:
        latents = noise * scheduler.init_noise_sigma
    for t in timesteps:
        out = model(scheduler.scale_model_input(latents, t), t)
        latents = scheduler.step(out, t, latents, **extra).prev_sample
    return latents
