"""Write the trained model in the diffusers layout, float16."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from scripts.train.words import LENGTH, save_tokenizer
from sdcore.models import VAE, TextEncoder, UNet

VERSION = "0.42.1"  # of diffusers, whose layout this is


def _write(folder: Path, file: str, config: dict[str, Any], model: torch.nn.Module) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n")
    state = {k: v.detach().cpu().half().contiguous() for k, v in model.state_dict().items()}
    partial = folder / f"{file}.partial"
    save_file(state, partial, metadata={"format": "pt"})
    partial.rename(folder / file)


def export(folder: Path, unet: UNet, vae: VAE, text: TextEncoder, tokenizer: Tokenizer) -> None:
    """Write a folder that sdcore.load and diffusers' StableDiffusionPipeline both read."""
    names = {"_diffusers_version": VERSION}
    levels = len(vae.config.block_out_channels)
    weights = "diffusion_pytorch_model.safetensors"

    drop = ("num_attention_heads", "addition_embed_type", "addition_time_embed_dim")
    config = {k: v for k, v in asdict(unet.config).items() if k not in drop and v is not None}
    _write(folder / "unet", weights, {"_class_name": "UNet2DConditionModel"} | names | config, unet)

    kinds = {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
    config = {k: v for k, v in asdict(vae.config).items() if v is not None}
    config = {"_class_name": "AutoencoderKL"} | names | config | kinds
    _write(folder / "vae", weights, config | {"force_upcast": False}, vae)

    config = {k: v for k, v in asdict(text.config).items() if k != "with_projection"}
    end = config["eos_token_id"]
    ids = {
        "bos_token_id": end - 1,
        "pad_token_id": end,
        "model_type": "clip_text_model",
        # Without it transformers would keep float16 here beside a float32 UNet.
        "dtype": "float32",
    }
    config = {"architectures": ["CLIPTextModel"]} | config | ids
    _write(folder / "text_encoder", "model.safetensors", config, text)

    save_tokenizer(tokenizer, folder / "tokenizer")
    scheduler = {
        "_class_name": "EulerAncestralDiscreteScheduler",
        "_guidance_scale": 2.5,
        "_spacing": "trailing",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "use_karras_sigmas": True,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        # As SD's files have them: what another class of diffusers, made from this file, would
        # otherwise do by its own defaults. DDIM's clips x0 to pixels' -1 to 1.
        "clip_sample": False,
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
    }
    (folder / "scheduler").mkdir(exist_ok=True)
    text_json = json.dumps(scheduler | names, indent=2, sort_keys=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(text_json + "\n")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index | names, indent=2) + "\n")
    assert text.config.max_position_embeddings == LENGTH
