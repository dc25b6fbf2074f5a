"""Products in bfloat16 inside of a network in float32.

Convolutions, linear layers and attention take and give bfloat16; norms, activations, additions, the
residual stream and what the network is asked stay in float32. (torch has switches of this name,
`torch.backends.mkldnn.conv.fp32_precision`, which act only on processors with AMX.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from sdcore.engine.ops import Add, ConvNorm, Norm, Ops, Pointwise

L = TypeVar("L", bound=Pointwise)


class RoundedOps(Ops):
    """The layers of `inner` with their products in bfloat16."""

    def __init__(self, inner: Ops) -> None:
        self.inner = inner
        self.name = f"{inner.name}, products in bfloat16"

    def conv(self, layer: nn.Conv2d) -> Add:
        return _added(self.inner.conv(_half(layer)))

    def conv_norm(self, layer: nn.Conv2d, norm: nn.GroupNorm) -> ConvNorm:
        run, after = self.inner.conv(_half(layer, bias=False)), self.norm(norm, silu=True)
        assert layer.bias is not None
        own = layer.bias[None]

        def both(x: Tensor, shift: Tensor | None) -> Tensor:
            shift = own if shift is None else shift
            return after(run(x.bfloat16()).float() + shift[:, :, None, None])

        return both

    def norm(self, layer: nn.GroupNorm, silu: bool) -> Norm:
        return self.inner.norm(layer, silu)

    def linear(self, *layers: Pointwise) -> Add:
        return _added(self.inner.linear(*[_half(layer) for layer in layers]))

    def geglu(self, layer: nn.Linear) -> Norm:
        run = self.inner.geglu(_half(layer))
        return lambda x: run(x.bfloat16()).float()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return self.inner.attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), heads).float()


def _added(run: Callable[[Tensor], Tensor]) -> Add:
    def both(x: Tensor, add: Tensor | None = None) -> Tensor:
        h = run(x.bfloat16()).float()
        return h if add is None else h + add

    return both


def _half(layer: L, bias: bool = True) -> L:
    """The layer in bfloat16, a copy; perhaps without its bias."""
    half = copy.copy(layer)
    half._parameters = {
        name: None if value is None or (name == "bias" and not bias) else _parameter(value)
        for name, value in layer._parameters.items()
    }
    return half


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().to(torch.bfloat16), requires_grad=False)
