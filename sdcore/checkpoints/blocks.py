"""ggml's block formats: so many weights as a few bytes, and the arithmetic that brings them back.

A tensor is a row of blocks. A block of the older formats holds 32 weights w and one scale d

    Q8_0  w = d q          q of 8 bits with sign
    Q5_0  w = d (q - 16)   Q4_0  w = d (q - 8)
    Q5_1  w = d q + m      Q4_1  w = d q + m

A block of the K formats holds 256, in 8 or 16 parts with a small scale s (and minimum t) each

    Q2_K, Q4_K, Q5_K  w = (d s) q - (m t)     Q3_K, Q6_K  w = (d s) q, q with sign

d and m are float16. Everything is float32, in ggml's own order, so that the numbers are its own to
the bit (`gguf.quants`, with which the tests compare).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BlockType:
    """A format: `size` weights in `nbytes` bytes."""

    name: str  # ggml's
    number: int  # in a GGUF header
    size: int
    nbytes: int
    unpack: Callable[[Tensor], Tensor]  # uint8 [n, nbytes] -> float32 [n, size]

    @property
    def bits(self) -> float:
        """Bits a weight."""
        return 8 * self.nbytes / self.size


def _cut(blocks: Tensor, *lengths: int) -> tuple[Tensor, ...]:
    """The parts of every block: so many bytes each, and the rest."""
    return blocks.split([*lengths, blocks.shape[1] - sum(lengths)], dim=1)


def _half(part: Tensor) -> Tensor:
    """float16 [n, 1] in two bytes, as float32."""
    return part.clone(memory_format=torch.contiguous_format).view(torch.float16).float()


def _shifted(part: Tensor, *places: int) -> Tensor:
    """The bytes [n, k, width] shifted right: [n, k, len(places), width]."""
    by = torch.tensor(places, dtype=torch.uint8, device=part.device)[:, None]
    return part[:, :, None, :] >> by


def _nibbles(part: Tensor, width: int) -> Tensor:
    """Every byte's low four bits, then its high ones, `width` bytes at a time: [n, .., width]."""
    return (_shifted(part.unflatten(1, (-1, width)), 0, 4) & 0x0F).flatten(1, 2)


def _q8_0(blocks: Tensor) -> Tensor:
    d, q = _cut(blocks, 2)
    return _half(d) * q.view(torch.int8)


def _q4_0(blocks: Tensor) -> Tensor:
    d, q = _cut(blocks, 2)
    return _half(d) * (_nibbles(q, 16).flatten(1).to(torch.int8) - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    d, m, q = _cut(blocks, 2, 2)
    return _half(d) * _nibbles(q, 16).flatten(1) + _half(m)


def _five_bits(high: Tensor, low: Tensor) -> Tensor:
    """The fifth bits are the 32 of four bytes, the first byte's lowest first."""
    fifth = _shifted(high[:, :, None], *range(8)).flatten(1) & 1
    return _nibbles(low, 16).flatten(1) | fifth << 4


def _q5_0(blocks: Tensor) -> Tensor:
    d, high, low = _cut(blocks, 2, 4)
    return _half(d) * (_five_bits(high, low).to(torch.int8) - 16)


def _q5_1(blocks: Tensor) -> Tensor:
    d, m, high, low = _cut(blocks, 2, 2, 4)
    return _half(d) * _five_bits(high, low) + _half(m)


def _q2_k(blocks: Tensor) -> Tensor:
    scales, q, d, m = _cut(blocks, 16, 64, 2)
    q = (_shifted(q.unflatten(1, (-1, 32)), 0, 2, 4, 6) & 3).reshape(-1, 16, 16)
    s, t = scales & 0x0F, scales >> 4
    return ((_half(d) * s)[:, :, None] * q - (_half(m) * t)[:, :, None]).flatten(1)


def _q3_k(blocks: Tensor) -> Tensor:
    high, low, scales, d = _cut(blocks, 32, 64, 12)
    least, most = _cut(scales, 8)
    s = _nibbles(least, 8).flatten(1)
    s = s | (_shifted(most[:, None], 0, 2, 4, 6) & 3).flatten(1) << 4
    q = (_shifted(low.unflatten(1, (-1, 32)), 0, 2, 4, 6) & 3).reshape(-1, 16, 16)
    absent = (_shifted(high[:, None], *range(8)) & 1 ^ 1).reshape(-1, 16, 16)
    q = q.to(torch.int8) - (absent << 2).to(torch.int8)
    return ((_half(d) * (s.to(torch.int8) - 32))[:, :, None] * q).flatten(1)


def _scales_and_minima(scales: Tensor) -> tuple[Tensor, Tensor]:
    """Eight scales and eight minima of six bits each, in twelve bytes."""
    s, t, rest = scales.split(4, dim=1)
    return (
        torch.cat([s & 0x3F, rest & 0x0F | s >> 2 & 0x30], dim=1),
        torch.cat([t & 0x3F, rest >> 4 | t >> 2 & 0x30], dim=1),
    )


def _q4_k(blocks: Tensor) -> Tensor:
    d, m, scales, q = _cut(blocks, 2, 2, 12)
    return _eight_parts(d, m, scales, _nibbles(q, 32))


def _q5_k(blocks: Tensor) -> Tensor:
    d, m, scales, high, low = _cut(blocks, 2, 2, 12, 32)
    fifth = (_shifted(high[:, None], *range(8)) & 1).flatten(1, 2)
    return _eight_parts(d, m, scales, _nibbles(low, 32) | fifth << 4)


def _eight_parts(d: Tensor, m: Tensor, scales: Tensor, q: Tensor) -> Tensor:
    s, t = _scales_and_minima(scales)
    return ((_half(d) * s)[:, :, None] * q - (_half(m) * t)[:, :, None]).flatten(1)


def _q6_k(blocks: Tensor) -> Tensor:
    low, high, scales, d = _cut(blocks, 128, 64, 16)
    low = _nibbles(low, 64).reshape(-1, 8, 32)
    high = (_shifted(high.unflatten(1, (-1, 32)), 0, 2, 4, 6) & 3).flatten(1, 2)
    q = ((low | high << 4).to(torch.int8) - 32).reshape(-1, 16, 16)
    return ((_half(d) * scales.view(torch.int8))[:, :, None] * q).flatten(1)


BLOCKS: Mapping[str, BlockType] = {
    each.name: each
    for each in (
        BlockType("Q4_0", 2, 32, 18, _q4_0),
        BlockType("Q4_1", 3, 32, 20, _q4_1),
        BlockType("Q5_0", 6, 32, 22, _q5_0),
        BlockType("Q5_1", 7, 32, 24, _q5_1),
        BlockType("Q8_0", 8, 32, 34, _q8_0),
        BlockType("Q2_K", 10, 256, 84, _q2_k),
        BlockType("Q3_K", 11, 256, 110, _q3_k),
        BlockType("Q4_K", 12, 256, 144, _q4_k),
        BlockType("Q5_K", 13, 256, 176, _q5_k),
        BlockType("Q6_K", 14, 256, 210, _q6_k),
    )
}
