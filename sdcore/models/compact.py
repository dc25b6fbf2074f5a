"""Weights held in 8 bits: a quarter of float32's memory, a half of float16's, and not quite exact.

Each row (output channel) of a weight has a scale of its own, w = scale * q. A layer multiplies it
out when it runs and forgets it again, so that memory is what is saved, and not time.

    int8    q = round(w / scale), scale = max |w| / 127: at most half a scale away
    fp8     q in float8 (e4m3, Micikevicius et al. 2022, arXiv 2209.05433), scale = max |w| / 448:
            3 bits of mantissa, at most 1/16 of itself away, where it is not next to nothing
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcore.errors import unknown
from sdcore.models.unet import UNet

_LARGEST = {"int8": 127.0, "fp8": 448.0}
KINDS = tuple(_LARGEST)


def check_kind(name: str | None) -> str | None:
    """The name of a way to hold weights. Raises InputError for one that is none."""
    if name is not None and name not in KINDS:
        raise unknown("way to hold weights", name, KINDS)
    return name


def quantized(weight: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """q [out,...] in 8 bits and scale [out,1,...], float32, such that weight is about scale * q."""
    whole = weight.detach().float()
    over = tuple(range(1, whole.ndim))
    scale = whole.abs().amax(over, keepdim=True) / _LARGEST[kind]
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    q = whole / scale
    return (q.round().to(torch.int8) if kind == "int8" else q.to(torch.float8_e4m3fn)), scale


class Compact(nn.Module):
    """A linear layer or a convolution whose weight is held in 8 bits."""

    q: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, kind: str, dtype: torch.dtype) -> None:
        """dtype: what the network computes in."""
        super().__init__()
        q, scale = quantized(layer.weight, kind)
        self.register_buffer("q", q)
        self.register_buffer("scale", scale.to(dtype))
        self.bias = layer.bias
        self.run: Callable[..., Tensor] = F.linear
        self.where: tuple = ()
        if isinstance(layer, nn.Conv2d):
            self.run = F.conv2d
            self.where = (layer.stride, layer.padding, layer.dilation, layer.groups)

    @property
    def weight(self) -> Tensor:
        """Multiplied out."""
        return self.q.to(self.scale.dtype) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, self.weight, self.bias, *self.where)


def compact(unet: UNet, kind: str, dtype: torch.dtype) -> None:
    """Hold the weights of every block of `unet` in 8 bits, in place; first and last stay whole.

    Raises InputError for a kind that is none.
    """
    check_kind(kind)
    for name, block in unet.named_children():
        if name.endswith(("_block", "_blocks")):
            _replace(block, kind, dtype)


def _replace(module: nn.Module, kind: str, dtype: torch.dtype) -> None:
    for name, layer in module.named_children():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            setattr(module, name, Compact(layer, kind, dtype))  # and the whole one is freed
        else:
            _replace(layer, kind, dtype)
