"""The UNet of `sdcore.models.unet` once more, for speed: the same layers by way of `ops`.

What differs from the network that a reader reads first:
* maps are channels-last from conv_in to conv_out;
* keys and values of the text are made once for a prompt, and the time embeddings, with the biases
  of the convs that they are added behind, once for a schedule;
* q, k and v of self-attention are one product; an addition, a norm and an activation that follow a
  layer are told to it, so that `ops` may do them in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from sdcore.engine.merging import Merging
from sdcore.engine.ops import Ops, image, tokens
from sdcore.models import unet as plain

Text = tuple[Tensor, Tensor] | Tensor  # keys and values of the text; or what attention to it gave
Texts = tuple[Text, ...]  # for every attention to the text, in the order in which they run
LARGE = 8 << 20  # bytes of a map that finds no place where those of half its side were


@dataclass(frozen=True)
class Told:
    """What every layer is told in one question.

    shifts: of each residual block, [1 or B, channels]. seen: None, or where each attention to the
    text puts what it gave.
    """

    shifts: Sequence[Tensor]
    texts: Texts
    seen: list[Tensor] | None = None


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

    def __init__(self, ops: Ops, block: Any, number: int, merging: Merging | None) -> None:
        own, text = block.attn1, block.attn2
        self.heads, self.attend, self.merging = own.heads, ops.attend, merging
        self.number = number  # of the attention to the text
        self.qkv = ops.linear(own.to_q, own.to_k, own.to_v)
        self.out1 = ops.linear_norm(own.to_out[0], block.norm2)
        self.q = ops.linear(text.to_q)
        self.out2 = ops.linear_norm(text.to_out[0], block.norm3)
        self.geglu = ops.geglu(block.ff.net[0].proj)

    def __call__(self, x: Tensor, normed: Tensor, told: Told, size: torch.Size) -> tuple:
        x, normed = self.out1(self._to_itself(normed, size), x)
        x, normed = self.out2(self._to_text(normed, told), x)
        return self.geglu(normed), x

    def _to_itself(self, normed: Tensor, size: torch.Size) -> Tensor:
        merged = None if self.merging is None else self.merging.of(normed, size)
        q, k, v = self.qkv(normed if merged is None else merged.tokens).chunk(3, dim=-1)
        out = self.attend(q, k, v, self.heads)
        return out if merged is None else merged.apart(out)

    def _to_text(self, normed: Tensor, told: Told) -> Tensor:
        text = told.texts[self.number]
        kept = isinstance(text, Tensor)
        out = text if kept else self.attend(self.q(normed), *text, self.heads)
        if told.seen is not None:
            told.seen.append(out)
        return out


class Transformer:
    """A Transformer2D. Each linear layer that writes x is told the norm that reads it next."""

    def __init__(self, ops: Ops, module: Any, first: int, merging: Merging | None) -> None:
        """first: the number of its first attention to the text."""
        blocks = list(module.transformer_blocks)
        self.norm = ops.norm(module.norm, silu=False)
        self.blocks = [Block(ops, block, first + i, merging) for i, block in enumerate(blocks)]
        writers = [module.proj_in, *(block.ff.net[2] for block in blocks[:-1])]
        self.into = [
            ops.linear_norm(writer, block.norm1)
            for writer, block in zip(writers, blocks, strict=True)
        ]
        self.last = ops.linear(blocks[-1].ff.net[2])
        self.proj_out = ops.linear(module.proj_out)

    def __call__(self, x: Tensor, told: Told) -> Tensor:
        size = x.shape[-2:]
        h, residual = tokens(self.norm(x)), None
        for into, block in zip(self.into, self.blocks, strict=True):
            y, normed = into(h, residual)
            h, residual = block(y, normed, told, size)
        return image(self.proj_out(self.last(h, residual), tokens(x)), size)


class Layer:
    """A residual block, and the transformer behind it; on the way up perhaps a doubling."""

    def __init__(self, number: int, resnet: Resnet, attention: Transformer | None) -> None:
        self.number, self.resnet, self.attention = number, resnet, attention
        self.double: Callable[[Tensor, torch.Size | None], Tensor] | None = None

    def __call__(self, x: Tensor, told: Told) -> Tensor:
        x = self.resnet(x, told.shifts[self.number])
        return x if self.attention is None else self.attention(x, told)


class FastUNet:
    """What a UNet computes, from its weights. `unet` must be as `sdcore.models` builds it.

    merging: of tokens, in the transformers of the largest maps; None: all tokens stay.
    """

    def __init__(self, unet: plain.UNet, ops: Ops, merging: Merging | None = None) -> None:
        self._plain, self.ops = ref(unet), ops  # whoever keeps this keeps no network alive by it
        self._merging, self._largest = merging, _largest(unet)
        self.resnets: list[Any] = []  # in the order in which they run
        self.texts: list[Any] = []  # the attentions to the text, likewise
        self.conv_in = ops.conv(unet.conv_in)
        self.down: list[Callable[[Tensor, Told], Tensor]] = []  # each makes a skip
        ways: Any = unet.down_blocks, unet.up_blocks
        for level, block in enumerate(ways[0]):
            self.down += self._layers(block, level)
            if hasattr(block, "downsamplers"):
                self.down.append(_alone(ops.conv(block.downsamplers[0].conv)))
        levels = len(unet.down_blocks)
        self.middle = self._layers(unet.mid_block, levels - 1) if hasattr(unet, "mid_block") else []
        self.up: list[Layer] = []  # each takes one
        for stage, block in enumerate(ways[1]):
            self.up += self._layers(block, levels - 1 - stage)
            if hasattr(block, "upsamplers"):
                self.up[-1].double = ops.double(block.upsamplers[0].conv)
        self.norm_out = ops.norm(unet.conv_norm_out, silu=True)
        self.conv_out = ops.conv(unet.conv_out)
        self.widths = [block.conv1.out_channels for block in self.resnets]

    def _layers(self, block: Any, level: int) -> list[Layer]:
        """The residual blocks of a stage, each with its transformer where it has one."""
        attentions = list(getattr(block, "attentions", []))  # the middle has one less
        merging = self._merging
        if merging is not None and level >= self._largest + merging.levels:
            merging = None
        layers = []
        for i, resnet in enumerate(block.resnets):
            attention = None
            if i < len(attentions):
                attention = Transformer(self.ops, attentions[i], len(self.texts), merging)
                self.texts += [each.attn2 for each in attentions[i].transformer_blocks]
            layers.append(Layer(len(self.resnets), Resnet(self.ops, resnet), attention))
            self.resnets.append(resnet)
        return layers

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

    def keys_values(self, context: Tensor) -> Texts:
        """Keys and values of the text [B,L,D] for every attention to it, in order."""
        return tuple((layer.to_k(context), layer.to_v(context)) for layer in self.texts)

    def __call__(self, x: Tensor, shift: Tensor, texts: Texts) -> Tensor:
        """x: [B,C,h,w]; shift: [1 or B, sum of channels] of one timestep. Returns [B,4,h,w]."""
        return self.whole(x, shift, texts)[0]

    def whole(
        self, x: Tensor, shift: Tensor, texts: Texts, near: int = 0, seen: list | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same, and what the last `near` layers of the way up are given from below."""
        told = Told(shift.split(self.widths, dim=-1), texts, seen)
        skips = self._skips(x, self.down, told)
        x = skips[-1]
        for layer in self.middle:
            x = layer(x, told)
        split = len(self.up) - near
        deep = self._rise(x, self.up[:split], skips, told)
        return self._out(self._rise(deep, self.up[split:], skips, told)), deep

    def shallow(self, x: Tensor, shift: Tensor, texts: Texts, near: int, deep: Tensor) -> Tensor:
        """The first `near` skips and the last `near` layers alone, with what was below before."""
        told = Told(shift.split(self.widths, dim=-1), texts)
        skips = self._skips(x, self.down[: near - 1], told)
        return self._out(self._rise(deep, self.up[-near:], skips, told))

    def _skips(self, x: Tensor, layers: Sequence[Any], told: Told) -> list[Tensor]:
        skips = [self.conv_in(x.contiguous(memory_format=torch.channels_last))]
        for layer in layers:
            skips.append(layer(skips[-1], told))
        return skips

    def _rise(self, x: Tensor, layers: Sequence[Layer], skips: list[Tensor], told: Told) -> Tensor:
        for layer in layers:
            # Not `layer(...)`, which would hold on to its wide input until attention is done.
            x = layer.resnet(torch.cat([x, skips.pop()], dim=1), told.shifts[layer.number])
            x = x if layer.attention is None else layer.attention(x, told)
            if layer.double is not None:
                x = layer.double(x, skips[-1].shape[-2:])
                if x.nbytes >= LARGE:
                    self.ops.settle()
        return x

    def _out(self, x: Tensor) -> Tensor:
        return self.conv_out(self.norm_out(x))


def _alone(conv: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Told], Tensor]:
    return lambda x, told: conv(x)


def _largest(unet: plain.UNet) -> int:
    """The level of the largest maps that have transformers; one that is not there if none have."""
    levels = [i for i, block in enumerate(unet.down_blocks) if hasattr(block, "attentions")]
    return min(levels, default=len(unet.down_blocks))


def _bias(bias: Tensor | None) -> Tensor | float:
    return 0.0 if bias is None else bias.float()
