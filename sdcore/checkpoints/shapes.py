"""Configurations from the shapes of the weights, in the fields of the published config.json.

Widths, depths, block types and channels stand in the shapes. What cannot be seen there, and comes
from the family: the number of attention heads, the picture's size in training, the VAE's scaling
factor, the encoder's activation; and what all of them share: 32 groups, the epsilons, how time
becomes a sinusoid.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sdcore.errors import InputError
from sdcore.models.vae_config import TINY

Shapes = Mapping[str, tuple[int, ...]]  # by the modules' own names


def unet_config(shapes: Shapes) -> dict[str, Any]:
    """A UNet's. SD 1.x, whose transformers begin with a convolution, has 8 heads in every block."""
    levels = range(_count(shapes, "down_blocks"))
    widths = [_size(shapes, f"down_blocks.{i}.resnets.0.conv2.weight", 0) for i in levels]
    down, up = (_depths(shapes, f"{way}_blocks") for way in ("down", "up"))
    mid_depth = _count(shapes, "mid_block.attentions.0.transformer_blocks")
    attention = next(
        (n.removesuffix("proj_in.weight") for n in shapes if n.endswith(".proj_in.weight")), ""
    )
    linear = len(shapes.get(f"{attention}proj_in.weight", ())) == 2
    config: dict[str, Any] = {
        "in_channels": _size(shapes, "conv_in.weight", 1),
        "out_channels": _size(shapes, "conv_out.weight", 0),
        "block_out_channels": widths,
        "layers_per_block": _count(shapes, "down_blocks.0.resnets"),
        "down_block_types": [("CrossAttn" if d[0] else "") + "DownBlock2D" for d in down],
        "up_block_types": [("CrossAttn" if d[0] else "") + "UpBlock2D" for d in up],
        "attention_head_dim": [heads_of_64(width) if linear else 8 for width in widths],
        "cross_attention_dim": _size(
            shapes, f"{attention}transformer_blocks.0.attn2.to_k.weight", 1
        ),
        "use_linear_projection": linear,
        "norm_num_groups": 32,
    }
    # The last level's depth is the middle's too, also where the level has no attention.
    depths = [d[0] or mid_depth or 1 for d in down]
    if [set(d) for d in up[::-1]] == [set(d) for d in down] and all(len(set(d)) == 1 for d in up):
        config["transformer_layers_per_block"] = depths
    else:  # distilled: every layer has its own
        ways = [
            [[n or 1 for n in d] if len(set(d)) > 1 else d[0] or 1 for d in way]
            for way in (down, up)
        ]
        ways[0][-1] = ways[0][-1] if any(down[-1]) else depths[-1]
        config["transformer_layers_per_block"] = ways[0]
        config["reverse_transformer_layers_per_block"] = ways[1]
    if not mid_depth:
        middle = any(name.startswith("mid_block.") for name in shapes)
        config["mid_block_type"] = "UNetMidBlock2D" if middle else None
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


def _depths(shapes: Shapes, way: str) -> list[list[int]]:
    """Transformer layers of every residual block's attention, block by block; 0 for none."""
    return [
        [
            _count(shapes, f"{way}.{i}.attentions.{j}.transformer_blocks")
            for j in range(_count(shapes, f"{way}.{i}.resnets"))
        ]
        for i in range(_count(shapes, way))
    ]


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """An AutoencoderKL's."""
    down = [
        _size(shapes, f"encoder.down_blocks.{i}.resnets.0.conv2.weight", 0)
        for i in range(_count(shapes, "encoder.down_blocks"))
    ]
    up = [
        _size(shapes, f"decoder.up_blocks.{i}.resnets.0.conv2.weight", 0)
        for i in reversed(range(_count(shapes, "decoder.up_blocks")))
    ]
    layers = _count(shapes, "encoder.down_blocks.0.resnets")
    config: dict[str, Any] = {
        "in_channels": _size(shapes, "encoder.conv_in.weight", 1),
        "out_channels": _size(shapes, "decoder.conv_out.weight", 0),
        "latent_channels": _size(shapes, "decoder.conv_in.weight", 1),
        "block_out_channels": down,
        "layers_per_block": layers,
        "norm_num_groups": 32,
    }
    up_layers = _count(shapes, "decoder.up_blocks.0.resnets") - 1
    if (up, up_layers) != (down, layers):  # the asymmetric one
        config |= {"up_block_out_channels": up, "layers_per_up_block": up_layers}
        config |= {"down_block_out_channels": down, "layers_per_down_block": layers}
        config["_class_name"] = "AsymmetricAutoencoderKL"
    return config


def tiny_vae_config(shapes: Shapes) -> dict[str, Any]:
    """An AutoencoderTiny's: the layers without a bias are where resolutions meet."""
    config: dict[str, Any] = {"_class_name": TINY}
    for side in ("encoder", "decoder"):
        names = sorted(indices(shapes, f"{side}.layers."))
        if not names:
            config["decoder_only"] = True
            continue
        blocks, widths = [0], []
        for i in names:
            weight = f"{side}.layers.{i}.weight"
            if f"{side}.layers.{i}.conv.0.weight" in shapes:
                blocks[-1] += 1
            elif weight in shapes and f"{side}.layers.{i}.bias" not in shapes:
                blocks.append(0)
                widths.append(_size(shapes, weight, 0))
        widths.append(_size(shapes, f"{side}.layers.0.weight", 0))
        config[f"num_{side}_blocks"] = blocks
        config[f"{side}_block_out_channels"] = widths
    config["latent_channels"] = _size(shapes, "decoder.layers.0.weight", 1)
    last = max(indices(shapes, "decoder.layers."))
    config["out_channels"] = _size(shapes, f"decoder.layers.{last}.weight", 0)
    if "encoder.layers.0.weight" in shapes:
        config["in_channels"] = _size(shapes, "encoder.layers.0.weight", 1)
    return config


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
