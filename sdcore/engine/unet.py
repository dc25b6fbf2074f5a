"""The UNet of `sdcore.models.unet` once more, for speed: the same layers by way of `ops`.

What differs from the network that a reader reads first:
* maps are channels-last from conv_in to conv_out;
* keys and values of the text are made once for a prompt, and the time embeddings, with the biases
  of the convs that they are added behind, once for a schedule;
* q, k and v of self-attention are one product; an addition, a norm and an activation that follow a
  layer are told to it, so that `ops` may do them in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from sdcore.engine.ops import Ops, image, tokens
from sdcore.models import unet as plain

KeysValues = tuple[tuple[Tensor, Tensor], ...]


class Resnet:
    """A ResnetBlock; `shift` of conv1, see `Ops.conv_norm`."""

    def __init__(self, ops: Ops, block: Any) -> None:
        self.norm1 = ops.norm(block.norm1, silu=True)
        self.conv1 = ops.conv_norm(block.conv1, block.norm2)
        self.conv2 = ops.conv(block.conv2)
        self.shortcut = None
        if hasattr(block, "conv_shortcut"):
            self.shortcut = ops.linear(block.conv_shortcut)

    def __call__(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        h = self.conv1(self.norm1(x), shift)
        if self.shortcut is not None:
            x = image(self.shortcut(tokens(x)), x.shape[-2:])
        return self.conv2(h, x)


class Block:
    """A TransformerBlock, but for its last linear layer and its first norm: see `Transformer`."""

    def __init__(self, ops: Ops, block: Any) -> None:
        own, text = block.attn1, block.attn2
        self.heads, self.attend = own.heads, ops.attend
        self.qkv = ops.linear(own.to_q, own.to_k, own.to_v)
        self.out1 = ops.linear_norm(own.to_out[0], block.norm2)
        self.q = ops.linear(text.to_q)
        self.out2 = ops.linear_norm(text.to_out[0], block.norm3)
        self.geglu = ops.geglu(block.ff.net[0].proj)

    def __call__(self, x: Tensor, normed: Tensor, text: tuple[Tensor, Tensor]) -> tuple:
        q, k, v = self.qkv(normed).chunk(3, dim=-1)
        x, normed = self.out1(self.attend(q, k, v, self.heads), x)
        x, normed = self.out2(self.attend(self.q(normed), *text, self.heads), x)
        return self.geglu(normed), x


class Transformer:
    """A Transformer2D. Each linear layer that writes x is told the norm that reads it next."""

    def __init__(self, ops: Ops, module: Any) -> None:
        blocks = list(module.transformer_blocks)
        self.norm = ops.norm(module.norm, silu=False)
        self.blocks = [Block(ops, block) for block in blocks]
        writers = [module.proj_in, *(block.ff.net[2] for block in blocks[:-1])]
        self.into = [
            ops.linear_norm(writer, block.norm1)
            for writer, block in zip(writers, blocks, strict=True)
        ]
        self.last = ops.linear(blocks[-1].ff.net[2])
        self.proj_out = ops.linear(module.proj_out)

    def __call__(self, x: Tensor, texts: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        h, residual = tokens(self.norm(x)), None
        for into, block in zip(self.into, self.blocks, strict=True):
            y, normed = into(h, residual)
            h, residual = block(y, normed, next(texts))
        return image(self.proj_out(self.last(h, residual), tokens(x)), x.shape[-2:])


class FastUNet:
    """What a UNet computes, from its weights. `unet` must be as `sdcore.models` builds it."""

    def __init__(self, unet: plain.UNet, ops: Ops) -> None:
        self._plain, self.ops = ref(unet), ops  # whoever keeps this keeps no network alive by it
        self.resnets: list[Any] = []  # in the order in which they run
        self.texts = []  # the attentions to the text, likewise
        self.conv_in = ops.conv(unet.conv_in)
        self.down = [self._stage(block, "downsamplers") for block in unet.down_blocks]
        self.mid = self._stage(unet.mid_block, "") if hasattr(unet, "mid_block") else ([], [], None)
        self.up = [self._stage(block, "upsamplers") for block in unet.up_blocks]
        self.norm_out = ops.norm(unet.conv_norm_out, silu=True)
        self.conv_out = ops.conv(unet.conv_out)
        self.widths = [block.conv1.out_channels for block in self.resnets]

    def _stage(self, block: Any, resample: str) -> tuple:
        """(residual blocks, transformers or None for each, the resampling conv or None)."""
        resnets, attentions = list(block.resnets), list(getattr(block, "attentions", []))
        self.resnets += resnets
        for attention in attentions:
            self.texts += [each.attn2 for each in attention.transformer_blocks]
        made = [Transformer(self.ops, attention) for attention in attentions]
        conv = None
        if hasattr(block, resample):
            layer = getattr(block, resample)[0].conv
            conv = self.ops.double(layer) if resample == "upsamplers" else self.ops.conv(layer)
        return [Resnet(self.ops, each) for each in resnets], made, conv

    @property
    def plain(self) -> plain.UNet:
        """The UNet that this was made of."""
        network = self._plain()
        assert network is not None
        return network

    def shifts(self, timesteps: Sequence[float], added: Mapping[str, Tensor]) -> Tensor:
        """What every residual block's conv1 is shifted by, at each of these timesteps.

        added: what SDXL is told beside the text, and guidance-distilled UNets, each [B,...].
        Returns [len(timesteps), B, sum of channels], float32; B is 1 where nothing is added.
        """
        first = self.plain.conv_in.weight
        rows = len(next(iter(added.values()))) if added else 1
        t = torch.tensor(timesteps, dtype=torch.float32, device=first.device)
        told = {name: torch.cat([value] * len(t)) for name, value in added.items()}
        time = self.plain.embed_time(t.repeat_interleave(rows), told, first.dtype)
        parts = [
            block.time_emb_proj(time).float() + _bias(block.conv1.bias) for block in self.resnets
        ]
        return torch.cat(parts, dim=-1).unflatten(0, (len(t), rows))

    def keys_values(self, context: Tensor) -> KeysValues:
        """Keys and values of the text [B,L,D] for every attention to it, in order."""
        return tuple((layer.to_k(context), layer.to_v(context)) for layer in self.texts)

    def __call__(self, x: Tensor, shift: Tensor, texts: KeysValues) -> Tensor:
        """x: [B,C,h,w]; shift: [1 or B, sum of channels] of one timestep. Returns [B,4,h,w]."""
        each, text = iter(shift.split(self.widths, dim=-1)), iter(texts)
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        skips = [x]
        for resnets, attentions, conv in self.down:
            for i, resnet in enumerate(resnets):
                x = resnet(x, next(each))
                x = attentions[i](x, text) if attentions else x
                skips.append(x)
            if conv is not None:
                x = conv(x)
                skips.append(x)
        resnets, attentions, _ = self.mid  # two and one between them; distilled: one or none
        for i, resnet in enumerate(resnets):
            x = resnet(x, next(each))
            x = attentions[i](x, text) if i < len(attentions) else x
        for resnets, attentions, conv in self.up:
            for i, resnet in enumerate(resnets):
                x = resnet(torch.cat([x, skips.pop()], dim=1), next(each))
                x = attentions[i](x, text) if attentions else x
            x = x if conv is None else conv(x, skips[-1].shape[-2:])
        return self.conv_out(self.norm_out(x))


def _bias(bias: Tensor | None) -> Tensor | float:
    return 0.0 if bias is None else bias.float()
