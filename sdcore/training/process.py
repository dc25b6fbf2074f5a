"""The process that a network is trained on: the checkpoint's own, or with pure noise at its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from sdcore.checkpoints.packed import Packed
from sdcore.errors import InputError
from sdcore.models.layers import placement
from sdcore.networks import Networks
from sdcore.process import Process, process_of
from sdcore.schedulers import resolve
from sdcore.schedulers.config import SD15
from sdcore.schedulers.flow_schedule import Schedule
from sdcore.training.plan import Plan

_BETAS = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "trained_betas")


def readied(networks: Networks, plan: Plan) -> Networks:
    """The networks with a scheduler configuration that says what they are trained to be.

    plan: with its prediction type. With `zero_snr` the last timestep is pure noise (Lin et al.
    2024, arXiv 2305.08891), and drawing begins there: trailing steps, of a class that has both.
    """
    config: dict[str, Any] = dict(SD15 if networks.scheduler_config is None else
                                  networks.scheduler_config)  # fmt: skip
    config["prediction_type"] = plan.prediction_type
    if plan.zero_snr:
        config = {name: config[name] for name in (*_BETAS, "prediction_type") if name in config}
        config |= {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True,
                   "timestep_spacing": "trailing", "clip_sample": False,
                   "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip
    return replace(networks, scheduler_config=config)


def process_and_schedule(networks: Networks) -> tuple[Process, Schedule]:
    """What the network is asked, and what it should say; the table of noise that it is asked at."""
    scheduler = resolve(None, config=networks.scheduler_config)
    schedule = scheduler.noise_schedule
    return process_of(scheduler.prediction_type, schedule), schedule


def check_trainable(networks: Networks) -> None:
    """Raises InputError for a model that is not trained here, or not as it is held."""
    name, family = networks.name, networks.family
    if networks.memory == "quantized":
        raise InputError(
            f"{name} is held quantized, and what is rounded so has no gradient: train the model "
            "that it was made of"
        )
    if networks.memory != "fast":
        raise InputError(
            f"{name} is held with --memory {networks.memory}, its weights not as they are used: a "
            "model is trained with --memory fast"
        )
    for part, module in networks.modules.items():
        tensors = [*module.parameters(), *module.buffers()]
        if any(isinstance(t, Packed) or t.dtype.itemsize < 2 for t in tensors):
            raise InputError(
                f"the {part} of {name} is quantized, and what is rounded so has no gradient: train "
                "the model that it was made of"
            )
    if networks.loras:
        raise InputError("adapters act on this model: merge them first (sdcore convert --lora)")
    if family.inpaints:
        raise InputError(f"{name} is an inpainting model: train the one that it was made of")
    if family.tells_scale:
        raise InputError(f"{name} is told the guidance scale: train the model it was made of")
    if placement(networks.unet)[1] == torch.float16:
        raise InputError(
            "in float16 small gradients become 0: train with --dtype bfloat16, or float32"
        )
