"""Published LDM files by their keys, whole: every one of them finds its place."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdcore.checkpoints import open_file
from sdcore.checkpoints.load import BUILD, NoInit
from sdcore.checkpoints.names import shape_after
from sdcore.checkpoints.read import read_header
from tests.checkpoints.ldm_writer import (
    State,
    ldm_clip,
    ldm_open_clip,
    ldm_unet,
    ldm_vae,
    training_state,
)

# The published configurations, from which the key lists are built on the meta device.
SD_UNET = {
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SD2_UNET = SD_UNET | {
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
REFINER_UNET = SDXL_UNET | {
    "block_out_channels": (384, 768, 1536, 1536),
    "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
    "attention_head_dim": (6, 12, 24, 24),
    "transformer_layers_per_block": 4,
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 2560,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
CLIP_H |= {"num_hidden_layers": 23, "hidden_act": "gelu"}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20}
CLIP_G |= {"num_hidden_layers": 32, "hidden_act": "gelu", "projection_dim": 1280}

SGM = "conditioner.embedders"
WHOLE = {  # UNet, {component: (its prefix, its configuration)}, keys in the file, keys by component
    "SD 1.5": (
        SD_UNET,
        {"text_encoder": ("cond_stage_model.transformer.", CLIP_L)},
        1145,
        {"unet": 686, "vae": 248, "text_encoder": 196},
    ),
    "SD 1.5 inpainting": (
        SD_UNET | {"in_channels": 9},
        {"text_encoder": ("cond_stage_model.transformer.", CLIP_L)},
        1145,
        {"unet": 686, "vae": 248, "text_encoder": 196},
    ),
    "LCM": (
        SD_UNET | {"time_cond_proj_dim": 256},
        {"text_encoder": ("cond_stage_model.transformer.", CLIP_L)},
        1146,
        {"unet": 687, "vae": 248, "text_encoder": 196},
    ),
    "SD 2 inpainting": (
        SD2_UNET | {"in_channels": 9},
        {"text_encoder": ("cond_stage_model.model.", CLIP_H)},
        1242,
        {"unet": 686, "vae": 248, "text_encoder": 372},
    ),
    "SD 2.1": (
        SD2_UNET,
        {"text_encoder": ("cond_stage_model.model.", CLIP_H)},
        1242,
        {"unet": 686, "vae": 248, "text_encoder": 372},
    ),
    "SD-Turbo": (
        SD2_UNET,
        {"text_encoder": (f"{SGM}.0.model.", CLIP_H)},
        None,
        {"unet": 686, "vae": 248, "text_encoder": 372},
    ),
    "SDXL": (
        SDXL_UNET,
        {
            "text_encoder": (f"{SGM}.0.transformer.", CLIP_L),
            "text_encoder_2": (f"{SGM}.1.model.", CLIP_G),
        },
        2515,
        {"unet": 1680, "vae": 248, "text_encoder": 196, "text_encoder_2": 517},
    ),
    "SDXL inpainting": (
        SDXL_UNET | {"in_channels": 9},
        {
            "text_encoder": (f"{SGM}.0.transformer.", CLIP_L),
            "text_encoder_2": (f"{SGM}.1.model.", CLIP_G),
        },
        2515,
        {"unet": 1680, "vae": 248, "text_encoder": 196, "text_encoder_2": 517},
    ),
    "SDXL refiner": (
        REFINER_UNET,
        {"text_encoder_2": (f"{SGM}.0.model.", CLIP_G)},
        None,
        {"unet": 1220, "vae": 248, "text_encoder_2": 517},
    ),
}


def write_hollow(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """A file of these names and shapes, float16, whose values are a hole: it takes no disk."""
    header, end = {}, 0
    for key, tensor in tensors.items():
        begin, end = end, end + 2 * tensor.numel()
        header[key] = {
            "dtype": "F16",
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    return path


def whole_file(unet: dict[str, Any], encoders: dict[str, tuple[str, dict[str, Any]]]) -> State:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"), NoInit():
        levels = len(unet["block_out_channels"])
        tensors = ldm_unet(UNet2DConditionModel(**unet).state_dict(), levels, 2)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        tensors |= ldm_vae(vae.state_dict(), 4, 2)
        for prefix, config in encoders.values():
            kind = CLIPTextModelWithProjection if "projection_dim" in config else CLIPTextModel
            state = kind(CLIPTextConfig(vocab_size=49408, **config)).state_dict()
            if "hidden_act" in config:
                layers = config["num_hidden_layers"]
                tensors |= ldm_open_clip(state, prefix, layers, extra=layers == 23)
            else:
                tensors |= ldm_clip(state, prefix)
        if any(key.startswith("cond_stage_model.") for key in tensors):
            tensors |= training_state()
    return tensors


@pytest.mark.parametrize("name", WHOLE)
def test_every_key_of_a_published_file_finds_its_place(name: str, tmp_path: Path) -> None:
    unet, encoders, count, counts = WHOLE[name]
    tensors = whole_file(unet, encoders)
    assert count is None or len(tensors) == count
    path = write_hollow(tmp_path / "whole.safetensors", tensors)
    checkpoint = open_file(path)
    assert checkpoint.components.keys() == counts.keys()
    info = read_header(path)
    for part in checkpoint.components.values():
        with torch.device("meta"), NoInit():
            module = BUILD[part.name](part.config)
        wanted = {key: tuple(t.shape) for key, t in module.state_dict().items()}
        found = [
            (name, shape_after(cut, info[key].shape))
            for key in info
            for name, cut in part.spelling(key).items()
        ]
        assert len(found) == len(wanted) == counts[part.name]
        assert dict(found) == wanted
    # The shapes give the published configuration back, and the family what shapes hide.
    config = checkpoint.components["unet"].config
    for field, value in unet.items():
        derived = config[field]
        if field == "transformer_layers_per_block" and isinstance(value, tuple):
            derived, value = derived[1:], value[1:]  # SDXL's first level has no transformer at all
        if isinstance(value, int) and isinstance(derived, list):
            assert set(derived) == {value}, field
        else:
            assert (tuple(derived) if isinstance(derived, list) else derived) == value, field
    for part, (_, published) in encoders.items():
        derived = checkpoint.components[part].config
        assert {field: derived[field] for field in published} == published
    vae = checkpoint.components["vae"].config
    assert vae["scaling_factor"] == (0.13025 if "SDXL" in name else 0.18215)
