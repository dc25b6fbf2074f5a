"""The layers on an NVIDIA GPU: channels-last throughout, what is small fused by Triton."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcore.engine import kernels
from sdcore.engine.ops import (
    Add,
    ConvNorm,
    LinearNorm,
    Norm,
    Ops,
    Pointwise,
    made_alike,
    matrix,
    padding,
)


def channels_last(layer: nn.Conv2d) -> Tensor:
    """The layer's weight in that layout, which from then on is the layer's own: no second copy."""
    with made_alike(layer.weight):
        weight = layer.weight.data.contiguous(memory_format=torch.channels_last)
        layer.weight.data = weight
    return weight


def side_by_side(layers: tuple[Pointwise, ...]) -> Tensor:
    """The layers' weights as one [sum of out, in], of which each layer then holds its part."""
    if len(layers) == 1:
        return matrix(layers[0]).data
    with made_alike(layers[0].weight):
        weight = torch.cat([matrix(layer) for layer in layers])
        parts = weight.split([len(layer.weight) for layer in layers])
        for layer, part in zip(layers, parts, strict=True):
            layer.weight.data = part.view(layer.weight.shape)
    return weight


def bias_of(*layers: Pointwise) -> Tensor:
    """The layers' biases side by side, float32; zeros where there is none."""
    return torch.cat(
        [
            layer.weight.new_zeros(len(layer.weight), dtype=torch.float32)
            if layer.bias is None
            else layer.bias.float()
            for layer in layers
        ]
    )


class CudaOps(Ops):
    """With Triton."""

    name = "triton"

    def conv(self, layer: nn.Conv2d) -> Add:
        weight, bias = channels_last(layer), bias_of(layer)
        how = layer.stride, padding(layer)

        def run(x: Tensor, add: Tensor | None = None) -> Tensor:
            if add is None:
                return F.conv2d(x, weight, layer.bias, *how)
            # cuDNN's bias would be a pass of its own; here it goes along with the addition.
            return kernels.add(_inner(F.conv2d(x, weight, None, *how)), bias, _inner(add))

        return run

    def conv_norm(self, layer: nn.Conv2d, norm: nn.GroupNorm) -> ConvNorm:
        weight, own = channels_last(layer), bias_of(layer)[None]
        how, after = (layer.stride, padding(layer)), _group_norm(norm)

        def run(x: Tensor, shift: Tensor | None) -> Tensor:
            return after(F.conv2d(x, weight, None, *how), own if shift is None else shift, True)

        return run

    def norm(self, layer: nn.GroupNorm, silu: bool) -> Norm:
        after = _group_norm(layer)
        still = torch.zeros(1, layer.num_channels, device=layer.weight.device)
        return lambda x: after(x, still, silu)

    def linear(self, *layers: Pointwise) -> Add:
        weight = side_by_side(layers)
        whole = bias_of(*layers)
        bias = None if all(layer.bias is None for layer in layers) else whole.to(weight.dtype)

        def run(x: Tensor, add: Tensor | None = None) -> Tensor:
            if add is None:
                return F.linear(x, weight, bias)
            return kernels.add(F.linear(x, weight), whole, add.contiguous())

        return run

    def linear_norm(self, layer: Pointwise, norm: nn.LayerNorm) -> LinearNorm:
        weight, bias = matrix(layer), bias_of(layer)
        scale, offset = norm.weight.float(), norm.bias.float()

        def run(x: Tensor, add: Tensor | None) -> tuple[Tensor, Tensor]:
            h = F.linear(x, weight)
            add = None if add is None else add.contiguous()
            return kernels.add_layer_norm(h, bias, add, scale, offset, norm.eps)

        return run

    def geglu(self, layer: nn.Linear) -> Norm:
        return lambda x: kernels.geglu(layer(x))


def _group_norm(layer: nn.GroupNorm) -> Callable[[Tensor, Tensor, bool], Tensor]:
    weight, bias = layer.weight.float(), layer.bias.float()
    groups, eps = layer.num_groups, layer.eps
    return lambda x, shift, silu: kernels.group_norm(
        _inner(x), weight, bias, groups, eps, shift, silu
    )


def _inner(x: Tensor) -> Tensor:
    """x with its channels innermost; nothing happens if they are."""
    return x.contiguous(memory_format=torch.channels_last)
