"""The modules' own names brought to the LDM layout: the rules of `ldm`, run backwards.

A rule takes an LDM key to a parameter. Run over every stem that a network of this size could have,
it gives the table that goes the other way, so that the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from sdcore.checkpoints.ldm import (
    OPEN_CLIP,
    OPEN_CLIP_LAYER,
    UNET_RESNET,
    VAE_ATTENTION,
    VAE_RESNET,
    open_clip_name,
    unet_name,
    vae_name,
)
from sdcore.checkpoints.parameter_names import Rename
from sdcore.checkpoints.shapes import indices

StateDict = Mapping[str, Tensor]


def unet_to_ldm(state: StateDict) -> dict[str, Tensor]:
    """A UNet's parameters under LDM names, without a prefix."""
    layers = 1 + max(indices(state, "down_blocks.0.resnets."))
    levels = 1 + max(indices(state, "down_blocks."))

    def rule(key: str) -> str | None:
        return unet_name(key, layers)

    return _renamed(state, rule, _unet_stems(state, layers, levels))


def vae_to_ldm(state: StateDict) -> dict[str, Tensor]:
    """A VAE's, whose attention LDM writes as convolutions of one pixel."""
    levels = 1 + max(indices(state, "encoder.down_blocks."))

    def rule(key: str) -> str | None:
        return vae_name(key, levels)

    renamed = _renamed(state, rule, _vae_stems(levels))
    return {
        key: tensor[:, :, None, None] if ".attn_1." in key and tensor.ndim == 2 else tensor
        for key, tensor in renamed.items()
    }


def text_encoder_to_open_clip(state: StateDict) -> dict[str, Tensor]:
    """A text encoder as OpenCLIP writes it: query, key and value in one, x @ P in place of P^T."""
    rest, fused = dict(state), {}
    layers = 1 + max(indices(state, "text_model.encoder.layers."))
    for i in range(layers):
        head = f"text_model.encoder.layers.{i}.self_attn"
        for last in ("weight", "bias"):
            parts = [rest.pop(f"{head}.{part}_proj.{last}") for part in "qkv"]
            fused[f"transformer.resblocks.{i}.attn.in_proj_{last}"] = torch.cat(parts)
    projection = rest.pop("text_projection.weight", None)
    if projection is not None:
        fused["text_projection"] = projection.t().contiguous()
    plain = {name: key for key, name in OPEN_CLIP.items() if not key.startswith("text_projection")}
    single = {plain[name]: rest.pop(name) for name in plain if name in rest}
    stems = (f"transformer.resblocks.{i}.{p}" for i in range(layers) for p in OPEN_CLIP_LAYER)
    return single | fused | _renamed(rest, open_clip_name, stems)


def _renamed(state: StateDict, rule: Rename, stems: Iterator[str]) -> dict[str, Tensor]:
    back: dict[str, str] = {}
    for stem in stems:
        name = rule(f"{stem}.weight")
        if name is not None:
            back[name.removesuffix(".weight")] = stem
    renamed = {}
    for name, tensor in state.items():
        head, rest = name, ""
        while head not in back:
            head, _, last = head.rpartition(".")
            rest = f".{last}{rest}"
            if not head:
                raise KeyError(name)
        renamed[f"{back[head]}{rest}"] = tensor
    return renamed


def _unet_stems(names: Collection[str], layers: int, levels: int) -> Iterator[str]:
    yield from ("input_blocks.0.0", "time_embed.0", "time_embed.2", "time_embed.cond_proj")
    yield from ("label_emb.0.0", "label_emb.0.2", "out.0", "out.2", "middle_block.1")
    yield from (f"middle_block.{i}.{part}" for i in (0, 2) for part in UNET_RESNET)
    for i in range(levels * (layers + 1)):
        for block in (f"input_blocks.{i + 1}", f"output_blocks.{i}"):
            yield from (f"{block}.0.{part}" for part in UNET_RESNET)
            yield f"{block}.1"
        yield f"input_blocks.{i + 1}.0.op"
        # The doubling comes after the attention, where there is one.
        attention = f"up_blocks.{i // (layers + 1)}.attentions."
        place = 2 if any(name.startswith(attention) for name in names) else 1
        yield f"output_blocks.{i}.{place}.conv"


def _vae_stems(levels: int) -> Iterator[str]:
    yield from ("quant_conv", "post_quant_conv")
    for side in ("encoder", "decoder"):
        yield from (f"{side}.{part}" for part in ("conv_in", "conv_out", "norm_out"))
        yield from (f"{side}.mid.block_{n}.{part}" for n in (1, 2) for part in VAE_RESNET)
        yield from (f"{side}.mid.attn_1.{part}" for part in VAE_ATTENTION)
    for i in range(levels):
        for way, step in (("encoder.down", "downsample"), ("decoder.up", "upsample")):
            yield f"{way}.{i}.{step}.conv"
            for layer in range(9):
                yield from (f"{way}.{i}.block.{layer}.{part}" for part in VAE_RESNET)
