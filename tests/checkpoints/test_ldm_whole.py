"""Published LDM files by their keys, whole: every one of them finds its place."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.families import PUBLISHED
from sdcore.checkpoints import open_file
from sdcore.checkpoints.load import BUILD, NoInit
from sdcore.checkpoints.parameter_names import shape_after
from sdcore.checkpoints.read import read_header
from tests.checkpoints.ldm_writer import (
    StateDict,
    ldm_clip,
    ldm_open_clip,
    ldm_unet,
    ldm_vae,
    training_state,
)

SGM = "conditioner.embedders"
SD1 = {"text_encoder": "cond_stage_model.transformer."}
SD2 = {"text_encoder": "cond_stage_model.model."}
TURBO = {"text_encoder": f"{SGM}.0.model."}
SDXL = {"text_encoder": f"{SGM}.0.transformer.", "text_encoder_2": f"{SGM}.1.model."}
OF_1 = {"unet": 686, "vae": 248, "text_encoder": 196}
OF_2 = OF_1 | {"text_encoder": 372}
OF_XL = {"unet": 1680, "vae": 248, "text_encoder": 196, "text_encoder_2": 517}
# name: whose configurations, the encoders' prefixes, keys in the file, keys by component
WHOLE = {
    "SD 1.5": ("runwayml/stable-diffusion-v1-5", SD1, 1145, OF_1),
    "SD 1.5 inpainting": ("runwayml/stable-diffusion-inpainting", SD1, 1145, OF_1),
    "LCM": ("SimianLuo/LCM_Dreamshaper_v7", SD1, 1146, OF_1 | {"unet": 687}),
    "SD 2 inpainting": ("stabilityai/stable-diffusion-2-inpainting", SD2, 1242, OF_2),
    "SD 2.1": ("stabilityai/stable-diffusion-2-1", SD2, 1242, OF_2),
    "SD-Turbo": ("stabilityai/stable-diffusion-2-1", TURBO, None, OF_2),
    "SDXL": ("stabilityai/stable-diffusion-xl-base-1.0", SDXL, 2515, OF_XL),
    "SDXL inpainting": ("diffusers/stable-diffusion-xl-1.0-inpainting-0.1", SDXL, 2515, OF_XL),
    "SDXL refiner": (
        "stabilityai/stable-diffusion-xl-refiner-1.0",
        {"text_encoder_2": f"{SGM}.0.model."},
        None,
        {"unet": 1220, "vae": 248, "text_encoder_2": 517},
    ),
}
# What shapes and family tell of a configuration.
UNET = ("attention_head_dim", "block_out_channels", "cross_attention_dim", "down_block_types")
UNET += ("addition_embed_type", "addition_time_embed_dim", "in_channels", "up_block_types")
UNET += ("projection_class_embeddings_input_dim", "time_cond_proj_dim", "use_linear_projection")
UNET += ("transformer_layers_per_block",)
TEXT = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
TEXT += ("hidden_act",)


def published(model: str, part: str) -> dict[str, Any]:
    """Those fields of a published configuration, lists as tuples."""
    raw = PUBLISHED[model].get(part) or PUBLISHED[model]["text_encoder"]  # the refiner's only one
    fields = {name: raw[name] for name in (UNET if part == "unet" else TEXT) if raw.get(name)}
    if "CLIPTextModelWithProjection" in raw.get("architectures", ()):
        fields["projection_dim"] = raw["projection_dim"]
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}


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


def whole_file(model: str, prefixes: Mapping[str, str]) -> StateDict:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    unet = published(model, "unet")
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
        for part, prefix in prefixes.items():
            config = published(model, part)
            kind = CLIPTextModelWithProjection if "projection_dim" in config else CLIPTextModel
            state = kind(CLIPTextConfig(vocab_size=49408, **config)).state_dict()
            if config["hidden_act"] == "gelu":
                layers = config["num_hidden_layers"]
                tensors |= ldm_open_clip(state, prefix, layers, extra=layers == 23)
            else:
                tensors |= ldm_clip(state, prefix)
        if any(key.startswith("cond_stage_model.") for key in tensors):
            tensors |= training_state()
    return tensors


@pytest.mark.parametrize("name", WHOLE)
def test_every_key_of_a_published_file_finds_its_place(name: str, tmp_path: Path) -> None:
    model, prefixes, count, counts = WHOLE[name]
    tensors = whole_file(model, prefixes)
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
    for field, value in published(model, "unet").items():
        derived = config[field]
        if field == "transformer_layers_per_block" and isinstance(value, tuple):
            derived, value = derived[1:], value[1:]  # SDXL's first level has no transformer at all
        if isinstance(value, int) and isinstance(derived, list):
            assert set(derived) == {value}, field
        else:
            assert (tuple(derived) if isinstance(derived, list) else derived) == value, field
    for part in prefixes:
        derived, fields = checkpoint.components[part].config, published(model, part)
        assert {field: derived[field] for field in fields} == fields
    vae = checkpoint.components["vae"].config
    assert vae["scaling_factor"] == (0.13025 if "SDXL" in name else 0.18215)
