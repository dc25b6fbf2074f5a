"""The layers as the fast networks use them, in plain torch: right on any device, fast on none.

Feature maps are [B,C,H,W] with the channels innermost in memory (channels-last), so that the same
numbers are [B,H*W,C] to a linear layer without a copy. `cuda.Ops` and `cpu.Ops` replace what their
processor does better; whoever adds a processor begins here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcore.models.layers import attend

Pointwise = nn.Linear | nn.Conv2d  # a conv of 1 x 1 is a linear layer of every pixel
Norm = Callable[[Tensor], Tensor]
LinearNorm = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
ConvNorm = Callable[[Tensor, Tensor | None], Tensor]


class Add(Protocol):
    def __call__(self, x: Tensor, add: Tensor | None = None) -> Tensor: ...


def tokens(x: Tensor) -> Tensor:
    """[B,C,H,W] -> [B,H*W,C], a view of channels-last memory."""
    return x.flatten(2).transpose(1, 2)


def image(x: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """[B,H*W,C] -> [B,C,H,W], a view in channels-last memory."""
    return x.transpose(1, 2).unflatten(2, tuple(size))


def matrix(layer: Pointwise) -> Tensor:
    """The weight of a linear layer or of a conv of 1 x 1, as [out, in]."""
    return layer.weight.flatten(1)


def made_alike(parameter: Tensor) -> torch.inference_mode:
    """Inference mode where the parameter was made in it: it takes new data only from there."""
    return torch.inference_mode(parameter.is_inference())


class Ops:
    """Layers to callables. Each is made once for a network, and holds what it needs."""

    name = "torch"
    reorders = False  # whether layers' weights come to lie in an order that only these read

    def settle(self) -> None:
        """A large map follows: give back what those before have left in pieces."""

    def conv(self, layer: nn.Conv2d) -> Add:
        """(x, add) -> layer(x) + add."""

        def run(x: Tensor, add: Tensor | None = None) -> Tensor:
            h = layer(x)
            return h if add is None else h + add

        return run

    def conv_norm(self, layer: nn.Conv2d, norm: nn.GroupNorm) -> ConvNorm:
        """(x, shift) -> SiLU(norm(conv(x) + shift)).

        shift: [1 or B, C], float32, in place of the conv's bias, which it contains; None: the bias.
        """
        after = self.norm(norm, silu=True)

        def run(x: Tensor, shift: Tensor | None) -> Tensor:
            if shift is None:
                return after(layer(x))
            h = F.conv2d(x, layer.weight, None, layer.stride, padding(layer))
            return after(h + shift[:, :, None, None].to(h.dtype))

        return run

    def norm(self, layer: nn.GroupNorm, silu: bool) -> Norm:
        """x -> layer(x), or SiLU of that."""
        return lambda x: F.silu(layer(x), inplace=True) if silu else layer(x)

    def layer_norm(self, layer: nn.LayerNorm) -> Norm:
        return layer

    def linear(self, *layers: Pointwise) -> Add:
        """(x, add) -> what the layers make of x [B,L,D], side by side, + add."""
        weights = [matrix(layer) for layer in layers]

        def run(x: Tensor, add: Tensor | None = None) -> Tensor:
            parts = [
                F.linear(x, weight, layer.bias)
                for weight, layer in zip(weights, layers, strict=True)
            ]
            h = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
            return h if add is None else h + add

        return run

    def linear_norm(self, layer: Pointwise, norm: nn.LayerNorm) -> LinearNorm:
        """(x, add) -> y = layer(x) + add, norm(y)."""
        linear, after = self.linear(layer), self.layer_norm(norm)

        def run(x: Tensor, add: Tensor | None) -> tuple[Tensor, Tensor]:
            y = linear(x, add)
            return y, after(y)

        return run

    def geglu(self, layer: nn.Linear) -> Norm:
        """x -> first half of layer(x) * GELU of the second (Shazeer 2020, arXiv 2002.05202)."""

        def run(x: Tensor) -> Tensor:
            hidden, gate = layer(x).chunk(2, dim=-1)
            return hidden * F.gelu(gate)

        return run

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Multi-head attention of [B,L,D] to [B,S,D]."""
        return attend(q, k, v, heads)

    def double(self, layer: nn.Conv2d) -> Callable[[Tensor, torch.Size | None], Tensor]:
        """(x, size) -> the conv of x doubled, or brought to (H, W), by its nearest neighbours."""
        conv = self.conv(layer)

        def run(x: Tensor, size: torch.Size | None = None) -> Tensor:
            if size is None or tuple(size) == (2 * x.shape[-2], 2 * x.shape[-1]):
                return conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            return conv(F.interpolate(x, size=tuple(size), mode="nearest"))

        return run


def padding(layer: nn.Conv2d) -> tuple[int, ...]:
    assert isinstance(layer.padding, tuple)
    return layer.padding
