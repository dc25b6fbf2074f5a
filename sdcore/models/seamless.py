"""Pictures whose edges meet: convolutions that go on at the other side.

What a convolution sees beyond an edge is the opposite edge, in place of zeros. Attention has no
edges, so a network of such convolutions draws pictures that can be laid side by side.
"""

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from sdcore.errors import InputError


class SeamlessConv2d(nn.Conv2d):
    """A Conv2d around a cylinder (x or y) or a torus (xy), padded alike on both sides."""

    axes = "xy"

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        down, across = (int(side) for side in self.padding)
        for axis, sides in (("x", (across, across, 0, 0)), ("y", (0, 0, down, down))):
            input = F.pad(input, sides, mode="circular" if axis in self.axes else "constant")
        return F.conv2d(input, weight, bias, self.stride, 0, self.dilation, self.groups)


class _AroundX(SeamlessConv2d):
    axes = "x"


class _AroundY(SeamlessConv2d):
    axes = "y"


_KINDS = {"x": _AroundX, "y": _AroundY, "xy": SeamlessConv2d}
AXES = tuple(_KINDS)


def check_axes(axes: str) -> str:
    """Raises InputError for what is no axis."""
    if axes not in AXES:
        raise InputError(f"tile is {', '.join(AXES)}, not {axes!r}")
    return axes


def seamless(network: nn.Module, axes: str) -> nn.Module:
    """The network with such convolutions; the one given stays as it is, all weights are shared."""
    twin = copy.copy(network)  # what it holds, its hooks too, is the one given's
    twin._modules = {
        name: None if module is None else seamless(module, axes)
        for name, module in network._modules.items()
    }
    if type(network) is nn.Conv2d and any(network.padding):
        twin.__class__ = _KINDS[axes]
    return twin
