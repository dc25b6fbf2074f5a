"""Configurations from the shapes of the weights, in the fields of the published config.json.

Widths, depths, block types and channels stand in the shapes. What cannot be seen there, and comes
from the family: the number of attention heads, the picture's size in training, the VAE's scaling
factor, the encoder's activation; and what all of them share: 32 groups, the epsilons, how time
becomes a sinusoid.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sdcore.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]  # by the modules' own names


def unet_config(shapes: Shapes, heads: Callable[[int], int]) -> dict[str, Any]:
    """A UNet's. heads: how many a block of so many channels has."""
    levels = range(_count(shapes, "down_blocks"))
    widths = [_size(shapes, f"down_blocks.{i}.resnets.0.conv2.weight", 0) for i in levels]
    stacks = [f"down_blocks.{i}.attentions.0.transformer_blocks" for i in levels]
    depths = [_count(shapes, stack) for stack in stacks]
    middle = "mid_block.attentions.0"
    mid_depth = _count(shapes, f"{middle}.transformer_blocks")
    config = {
        "in_channels": _size(shapes, "conv_in.weight", 1),
        "out_channels": _size(shapes, "conv_out.weight", 0),
        "block_out_channels": widths,
        "layers_per_block": _count(shapes, "down_blocks.0.resnets"),
        "down_block_types": [("CrossAttn" if d else "") + "DownBlock2D" for d in depths],
        "up_block_types": [("CrossAttn" if d else "") + "UpBlock2D" for d in reversed(depths)],
        # The last level's depth is the middle's too, also where the level has no attention.
        "transformer_layers_per_block": [depth or mid_depth for depth in depths],
        "attention_head_dim": [heads(width) for width in widths],
        "cross_attention_dim": _size(shapes, f"{middle}.transformer_blocks.0.attn2.to_k.weight", 1),
        "use_linear_projection": len(shapes.get(f"{middle}.proj_in.weight", ())) == 2,
        "norm_num_groups": 32,
    }
    if "time_embedding.cond_proj.weight" in shapes:
        config["time_cond_proj_dim"] = _size(shapes, "time_embedding.cond_proj.weight", 1)
    if "add_embedding.linear_1.weight" in shapes:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": _size(
                shapes, "add_embedding.linear_1.weight", 1
            ),
        }
    return config


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """An AutoencoderKL's."""
    levels = range(_count(shapes, "encoder.down_blocks"))
    return {
        "in_channels": _size(shapes, "encoder.conv_in.weight", 1),
        "out_channels": _size(shapes, "decoder.conv_out.weight", 0),
        "latent_channels": _size(shapes, "decoder.conv_in.weight", 1),
        "block_out_channels": [
            _size(shapes, f"encoder.down_blocks.{i}.resnets.0.conv2.weight", 0) for i in levels
        ],
        "layers_per_block": _count(shapes, "encoder.down_blocks.0.resnets"),
        "norm_num_groups": 32,
    }


def text_encoder_config(shapes: Shapes) -> dict[str, Any]:
    """A CLIP text encoder's. Every published one has heads of 64."""
    words = "text_model.embeddings.token_embedding.weight"
    width = _size(shapes, words, 1)
    config = {
        "vocab_size": _size(shapes, words, 0),
        "hidden_size": width,
        "intermediate_size": _size(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", 0),
        "num_hidden_layers": _count(shapes, "text_model.encoder.layers"),
        "num_attention_heads": heads_of_64(width),
        "max_position_embeddings": _size(
            shapes, "text_model.embeddings.position_embedding.weight", 0
        ),
        "eos_token_id": 2,  # as published: the end of a text is where its largest id stands
        "architectures": ["CLIPTextModel"],
    }
    if "text_projection.weight" in shapes:
        config["projection_dim"] = _size(shapes, "text_projection.weight", 0)
        config["architectures"] = ["CLIPTextModelWithProjection"]
    return config


def heads_of_64(width: int) -> int:
    """How many heads of 64 channels there are in `width`, at least one."""
    return max(1, width // 64)


def _size(shapes: Shapes, name: str, axis: int) -> int:
    shape = shapes.get(name, ())
    if len(shape) <= axis:
        raise InputError(f"{name} is {'no matrix' if shape else 'missing'}")
    return shape[axis]


def _count(shapes: Shapes, stem: str) -> int:
    """How many entries the list `stem` has."""
    return 1 + max(indices(shapes, f"{stem}."), default=-1)


def indices(names: Iterable[str], head: str, tail: str = ".") -> set[int]:
    """The numbers N of the names that begin with head N tail.

    >>> sorted(indices(["a.0.x", "a.2.y", "a.b", "c.9.x"], "a."))
    [0, 2]
    """
    pattern = re.compile(rf"{re.escape(head)}(\d{{1,3}}){re.escape(tail)}")
    return {int(m[1]) for name in names if (m := pattern.match(name))}
