"""The VAE's decoder of `sdcore.models.vae` once more, for speed: the same layers through `ops`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdcore.engine.ops import Ops, image, tokens
from sdcore.engine.unet import Resnet
from sdcore.models import VAE

LARGE = 32 << 20  # bytes of a map that is hard to find a place for


class Attention:
    """Self-attention over all positions, one head, residual."""

    def __init__(self, ops: Ops, block: Any) -> None:
        self.norm, self.attend = ops.norm(block.group_norm, silu=False), ops.attend
        self.qkv = ops.linear(block.to_q, block.to_k, block.to_v)
        self.out = ops.linear(block.to_out[0])

    def __call__(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens(self.norm(x))).chunk(3, dim=-1)
        return image(self.out(self.attend(q, k, v, 1), tokens(x)), x.shape[-2:])


class FastDecoder:
    """Latents [B,4,h,w] of unit variance -> [B,3,8h,8w], about [-1, 1]."""

    def __init__(self, vae: VAE, ops: Ops) -> None:
        decoder: Any = vae.decoder
        self.config, self.post = vae.config, getattr(vae, "post_quant_conv", None)
        self.ops = ops
        self.conv_in = ops.conv(decoder.conv_in)
        first, second = (Resnet(ops, block) for block in decoder.mid_block.resnets)
        middle = [Attention(ops, block) for block in getattr(decoder.mid_block, "attentions", [])]
        self.blocks: list = [first, *middle, second]
        for block in decoder.up_blocks:
            self.blocks += [Resnet(ops, each) for each in block.resnets]
            if hasattr(block, "upsamplers"):
                self.blocks.append(ops.double(block.upsamplers[0].conv))
        self.norm_out = ops.norm(decoder.conv_norm_out, silu=True)
        self.conv_out = ops.conv(decoder.conv_out)

    def __call__(self, latents: Tensor) -> Tensor:
        z = latents / self.config.scaling_factor
        z = z if self.post is None else self.post(z)
        x = self.conv_in(z.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            if x.nbytes >= LARGE:
                self.ops.settle()
            x = block(x)
        return self.conv_out(self.norm_out(x))
