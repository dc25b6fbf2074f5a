"""What a trained file says of itself: the core of kohya's `ss_*` notes, and modelspec 1.0.1."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from sdcore.networks import Networks
from sdcore.training.latents import Item
from sdcore.training.plan import Plan
from sdcore.version import VERSION

_KINDS = {"lora": "/lora", "embedding": "/textual-inversion"}


def notes_of(
    networks: Networks, plan: Plan, items: Sequence[Item], step: int, epoch: int, title: str
) -> dict[str, str]:
    """Texts for the header of the file, by kohya's and modelspec's names.

    plan: with its resolution and prediction type.
    """
    base, architecture = _family(networks, plan)
    side = f"{plan.resolution}x{plan.resolution}"
    v = plan.prediction_type == "v_prediction"
    buckets = Counter(f"{i.size[0]}x{i.size[1]}" for i in items)
    notes = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture + _KINDS.get(plan.method, ""),
        "modelspec.implementation": "diffusers" if plan.layout == "diffusers" else
        "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title,
        "modelspec.resolution": side,
        "modelspec.prediction_type": "v" if v else str(plan.prediction_type),
        "ss_base_model_version": base,
        "ss_v2": str(base.startswith("sd_v2")),
        "ss_sd_model_name": networks.name,
        "ss_learning_rate": str(plan.rate),
        "ss_unet_lr": str(plan.rate),
        "ss_text_encoder_lr": str(plan.text_rate if plan.text else None),
        "ss_steps": str(step),
        "ss_epoch": str(epoch),
        "ss_num_train_images": str(sum(i.example.repeats for i in items)),
        "ss_resolution": f"({plan.resolution}, {plan.resolution})",
        "ss_bucket_info": json.dumps({"buckets": buckets}),
        "ss_batch_size_per_device": str(plan.batch),
        "ss_gradient_accumulation_steps": str(plan.accumulate),
        "ss_optimizer": plan.optimizer,
        "ss_lr_scheduler": plan.schedule,
        "ss_min_snr_gamma": str(plan.min_snr or None),
        "ss_noise_offset": str(plan.noise_offset or None),
        "ss_zero_terminal_snr": str(plan.zero_snr),
        "ss_caption_dropout_rate": str(plan.caption_dropout),
        "ss_seed": str(plan.seed),
        "ss_training_comment": f"sdcore {VERSION}",
    }  # fmt: skip
    if plan.method == "lora":
        notes |= {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(plan.rank),
            "ss_network_alpha": str(float(plan.rank * plan.scale)),
            "ss_network_dropout": str(plan.dropout or None),
        }
    if plan.word is not None:
        notes["modelspec.trigger_phrase"] = plan.word
    return notes


def _family(networks: Networks, plan: Plan) -> tuple[str, str]:
    """kohya's name of the base model, and modelspec's."""
    if networks.family.told:
        return "sdxl_base_v1-0", "stable-diffusion-xl-v1-base"
    if networks.unet.config.cross_attention_dim == 1024:
        v = plan.prediction_type == "v_prediction"
        return (
            ("sd_v2_v", "stable-diffusion-v2-768-v") if v else ("sd_v2", "stable-diffusion-v2-512")
        )
    return "sd_v1", "stable-diffusion-v1"
