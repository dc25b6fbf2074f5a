"""Quantized weights as tensors: the shape is the weight's, what lies in memory is the smaller form.

A `Packed` can stand wherever a weight is kept: in a state dict, as a parameter, in a `Store`.
Whatever is computed with it sees the numbers, worked out for that one operation. What only passes
it on (to another device, another shape of the same order, some of its rows) leaves it packed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from sdcore.checkpoints.blocks import BlockType

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Blocks:
    """ggml's: uint8 [n, bytes of a block]."""

    data: Tensor
    type: BlockType

    def numbers(self) -> Tensor:
        """float32, flat."""
        return self.type.unpack(self.data).flatten()

    def part(self, first: int, count: int) -> Blocks | None:
        """Some of the numbers, in the same form; None where a block would be cut."""
        size = self.type.size
        if first % size or count % size:
            return None
        return Blocks(self.data[first // size : (first + count) // size], self.type)

    def to(self, device: torch.device) -> Blocks:
        return Blocks(self.data.to(device), self.type)


@dataclass(frozen=True, eq=False)
class Scaled:
    """Small numbers [N], float8 or int8, and float32 scales [k]: of N/k of them each, in order."""

    data: Tensor
    scale: Tensor

    def numbers(self) -> Tensor:
        """float32, flat."""
        return (self.data.float().view(len(self.scale), -1) * self.scale[:, None]).flatten()

    def part(self, first: int, count: int) -> Scaled | None:
        """Some of the numbers, in the same form; None where a scale's share would be cut."""
        data = self.data[first : first + count]
        if len(self.scale) == 1:
            return Scaled(data, self.scale)
        each = len(self.data) // len(self.scale)
        if first % each or count % each:
            return None
        return Scaled(data, self.scale[first // each : (first + count) // each])

    def to(self, device: torch.device) -> Scaled:
        return Scaled(self.data.to(device), self.scale.to(device))


class Packed(Tensor):
    """A quantized weight. Its dtype is float8 in name only: no network computes in that."""

    form: Blocks | Scaled

    @staticmethod
    def __new__(cls, form: Blocks | Scaled, shape: tuple[int, ...]) -> Packed:
        made = torch.Tensor._make_wrapper_subclass(
            cls, shape, dtype=torch.float8_e4m3fn, device=form.data.device
        )
        made.form = form
        return made

    def unpacked(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The numbers, worked out in float32 and rounded to `dtype`."""
        return self.form.numbers().view(self.shape).to(dtype)

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Packed({list(self.shape)}, {self.device})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        if func in _KEPT and isinstance(args[0], Packed):
            kept = _KEPT[func](*args, **kwargs)
            if kept is not None:
                return kept
        args, kwargs = tree_map(_whole, (args, kwargs))
        return func(*args, **kwargs)


def _whole(value: Any) -> Any:
    return value.unpacked() if isinstance(value, Packed) else value


def _same(packed: Packed) -> Packed:
    return Packed(packed.form, tuple(packed.shape))


def _moved(packed: Packed, *, device: Any = None, dtype: Any = None, **_: Any) -> Tensor:
    """Moved as it lies, and only then worked out, where a dtype is asked for."""
    form = packed.form if device is None else packed.form.to(torch.device(device))
    moved = Packed(form, tuple(packed.shape))
    return moved if dtype is None else moved.unpacked(dtype)


def _viewed(packed: Packed, size: list[int]) -> Packed:
    shape = torch.empty(packed.shape, device="meta").view(size).shape  # -1 as torch takes it
    return Packed(packed.form, tuple(shape))


def _rows(packed: Packed, size: int, dim: int = 0) -> list[Packed] | None:
    if dim != 0 or not len(packed):
        return None
    each = packed.numel() // len(packed)
    pieces = []
    for row in range(0, len(packed), size):
        count = min(size, len(packed) - row)
        form = packed.form.part(row * each, count * each)
        if form is None:
            return None
        pieces.append(Packed(form, (count, *packed.shape[1:])))
    return pieces


_KEPT: Mapping[Any, Callable[..., Any]] = {
    aten.detach.default: _same,
    aten._to_copy.default: _moved,
    aten.view.default: _viewed,
    aten.split.Tensor: _rows,
}
