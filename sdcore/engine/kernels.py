"""Triton kernels of a GPU, for tensors whose channels are innermost. Importing this needs Triton.

torch's GroupNorm on CUDA wants the channels outermost; a network that is channels-last from end to
end is turned round twice at each of its norms. These stay in the layout, and take the additions
before and the activation behind along. Sums are in float32 whatever comes in, in an order that
depends on the shape only: equal input gives equal bits.

Every function here also runs, slowly, on a CPU in Triton's interpreter (TRITON_INTERPRET=1).
"""

# Triton's language is typed by its compiler: pyright sees tensors as numbers.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 32  # pixels that a program of the GroupNorm holds at a time


@triton.jit(do_not_specialize=["rows", "chunks", "tiles", "shift_stride"])
def _moments(
    x, shift, moments, rows, C, width, chunks, tiles, shift_stride,
    BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations of each channel of x + shift over one chunk of rows."""
    chunk, block, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    lane = tl.arange(0, BLOCK)
    col = block * width + lane
    inside = (lane < width) & (col < C)
    first = chunk * tiles * ROWS
    begin = x + (b.to(tl.int64) * rows + first) * C
    mean = tl.zeros([BLOCK], tl.float32)
    squares = tl.zeros([BLOCK], tl.float32)
    seen = 0.0
    for tile in range(tiles):
        row = tile * ROWS + tl.arange(0, ROWS)
        mask = (first + row < rows)[:, None] & inside[None, :]
        value = tl.load(begin + row[:, None] * C + col[None, :], mask, 0.0).to(tl.float32)
        count = tl.minimum(tl.maximum(rows - first - tile * ROWS, 0), ROWS).to(tl.float32)
        # Chan et al. 1983: two sets of moments into one, without the cancellation of sums.
        now = tl.sum(value, 0) / tl.maximum(count, 1.0)
        off = tl.where(mask, value - now[None, :], 0.0)
        total = seen + count
        share = count / tl.maximum(total, 1.0)
        delta = now - mean
        squares += tl.sum(off * off, 0) + delta * delta * seen * share
        mean += delta * share
        seen = total
    mean += tl.load(shift + b * shift_stride + col, inside, 0.0)
    out = moments + (b * chunks + chunk) * 2 * C + col
    tl.store(out, mean, inside)
    tl.store(out + C, squares, inside)


@triton.jit(do_not_specialize=["rows", "chunks", "tiles", "shift_stride", "size", "eps"])
def _normalise(
    x, shift, moments, weight, bias, y, rows, C, width, size, chunks, tiles, shift_stride, eps,
    BLOCK: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr, CHUNKS: tl.constexpr,
    SILU: tl.constexpr,
):  # fmt: skip
    """(x + shift - mean) / std * weight + bias of one chunk of rows, from every chunk's moments."""
    chunk, block, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    lane = tl.arange(0, BLOCK)
    col = block * width + lane
    inside = (lane < width) & (col < C)
    chunk_rows = tiles * ROWS
    member = (lane // size)[:, None] == tl.arange(0, GROUPS)[None, :]  # of which group, [C, G]
    member = member & inside[:, None]
    every = moments + b * chunks * 2 * C + col
    totals = tl.zeros([BLOCK], tl.float32)
    for start in range(0, chunks, CHUNKS):
        which = start + tl.arange(0, CHUNKS)
        mask = (which < chunks)[:, None] & inside[None, :]
        counts = tl.minimum(tl.maximum(rows - which * chunk_rows, 0), chunk_rows).to(tl.float32)
        means = tl.load(every[None, :] + which[:, None] * 2 * C, mask, 0.0)
        totals += tl.sum(means * counts[:, None], 0)
    number = rows * size.to(tl.float32)
    group = tl.sum(tl.where(member, totals[:, None], 0.0), 0) / number
    mean = tl.sum(tl.where(member, group[None, :], 0.0), 1)
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, chunks, CHUNKS):
        which = start + tl.arange(0, CHUNKS)
        mask = (which < chunks)[:, None] & inside[None, :]
        counts = tl.minimum(tl.maximum(rows - which * chunk_rows, 0), chunk_rows).to(tl.float32)
        place = every[None, :] + which[:, None] * 2 * C
        off = tl.where(mask, tl.load(place, mask, 0.0) - mean[None, :], 0.0)
        squares += tl.sum(tl.load(place + C, mask, 0.0) + off * off * counts[:, None], 0)
    group = tl.sum(tl.where(member, squares[:, None], 0.0), 0) / number
    variance = tl.sum(tl.where(member, group[None, :], 0.0), 1)
    scale = tl.load(weight + col, inside, 0.0) / tl.sqrt(variance + eps)
    lift = tl.load(shift + b * shift_stride + col, inside, 0.0) - mean
    offset = tl.load(bias + col, inside, 0.0)
    first = chunk * chunk_rows
    begin = (b.to(tl.int64) * rows + first) * C
    for tile in range(tiles):
        row = tile * ROWS + tl.arange(0, ROWS)
        mask = (first + row < rows)[:, None] & inside[None, :]
        place = row[:, None] * C + col[None, :]
        value = tl.load(x + begin + place, mask, 0.0).to(tl.float32)
        value = (value + lift[None, :]) * scale[None, :] + offset[None, :]
        if SILU:
            value = value / (1.0 + tl.exp(-value))
        tl.store(y + begin + place, value.to(y.dtype.element_ty), mask)


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, shift: Tensor, silu: bool
) -> Tensor:
    """GroupNorm (Wu & He 2018, arXiv 1803.08494) of x + shift, then SiLU or nothing.

    x: [B,C,H,W], channels-last. weight, bias: [C], float32. shift: [1 or B, C], float32.
    Returns [B,C,H,W] in x's dtype and layout.
    """
    batch, channels, height, side = x.shape
    rows, size = height * side, channels // groups
    width, block = _columns(channels, size)
    chunk = max(_ROWS, triton.next_power_of_2(math.isqrt(rows)) * 2)
    tiles, chunks = chunk // _ROWS, triton.cdiv(rows, chunk)
    stride = 0 if len(shift) == 1 else shift.stride(0)
    moments = torch.empty(batch, chunks, 2, channels, dtype=torch.float32, device=x.device)
    y = torch.empty_like(x)
    grid = (chunks, triton.cdiv(channels, width), batch)
    _moments[grid](
        x, shift, moments, rows, channels, width, chunks, tiles, stride,
        BLOCK=block, ROWS=_ROWS, num_warps=8,
    )  # fmt: skip
    _normalise[grid](
        x, shift, moments, weight, bias, y, rows, channels, width, size, chunks, tiles, stride, eps,
        BLOCK=block, GROUPS=triton.next_power_of_2(block // size + 1), ROWS=_ROWS, CHUNKS=16,
        SILU=silu, num_warps=8,
    )  # fmt: skip
    return y


@cache
def _columns(channels: int, size: int) -> tuple[int, int]:
    """How many channels a program takes, whole groups of them, and the power of 2 that holds them.

    Multiples of 16 are read 16 bytes at a time. 240 is one of 10, 20, 30, 40, 60 and 80, the sizes
    of the groups of every published UNet.
    """
    for width in (240, 256, 128, 64, 32):
        if width % size == 0 and width <= channels:
            return width, triton.next_power_of_2(width)
    if channels <= 256:
        return channels, triton.next_power_of_2(channels)
    width = max(256 // size, 1) * size
    return width, triton.next_power_of_2(width)


@triton.jit(do_not_specialize=["count"])
def _add(x, bias, residual, y, count, C, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    value = tl.load(x + place, mask, 0.0).to(tl.float32)
    value += tl.load(bias + place % C, mask, 0.0)
    value += tl.load(residual + place, mask, 0.0).to(tl.float32)
    tl.store(y + place, value.to(y.dtype.element_ty), mask)


def add(x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    """x + bias + residual, rounded once. x, residual: channels innermost, [..., C] in memory.

    bias: [C], float32. Writes over x, and returns it.
    """
    count = x.numel()
    _add[(triton.cdiv(count, 1024),)](x, bias, residual, x, count, len(bias), BLOCK=1024)
    return x


@triton.jit(do_not_specialize=["eps"])
def _add_layer_norm(
    x, bias, residual, weight, offset, y, normed, eps, C,
    BLOCK: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * C
    col = tl.arange(0, BLOCK)
    mask = col < C
    value = tl.load(x + row + col, mask, 0.0).to(tl.float32)
    value += tl.load(bias + col, mask, 0.0)
    if RESIDUAL:
        value += tl.load(residual + row + col, mask, 0.0).to(tl.float32)
    value = value.to(y.dtype.element_ty)
    tl.store(y + row + col, value, mask)
    value = value.to(tl.float32)
    mean = tl.sum(value, 0) / C
    off = tl.where(mask, value - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(off * off, 0) / C + eps)
    out = off * scale * tl.load(weight + col, mask, 0.0) + tl.load(offset + col, mask, 0.0)
    tl.store(normed + row + col, out.to(normed.dtype.element_ty), mask)


def add_layer_norm(
    x: Tensor, bias: Tensor, residual: Tensor | None, weight: Tensor, offset: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """y = x + bias + residual, and LayerNorm(y) * weight + offset.

    x, residual: [..., C], contiguous; bias, weight, offset: [C], float32. y is written over x.
    """
    channels = x.shape[-1]
    normed = torch.empty_like(x)
    _add_layer_norm[(x.numel() // channels,)](
        x, bias, x if residual is None else residual, weight, offset, x, normed, eps, channels,
        BLOCK=triton.next_power_of_2(channels), RESIDUAL=residual is not None,
    )  # fmt: skip
    return x, normed


@triton.jit
def _geglu(x, y, D, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    col = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = col < D
    hidden = tl.load(x + row * 2 * D + col, mask, 0.0).to(tl.float32)
    gate = tl.load(x + row * 2 * D + D + col, mask, 0.0).to(tl.float32)
    gate = gate * 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(y + row * D + col, (hidden * gate).to(y.dtype.element_ty), mask)


def geglu(x: Tensor) -> Tensor:
    """[..., 2D] contiguous -> [..., D]: the first half times GELU (exact) of the second."""
    width = x.shape[-1] // 2
    y = torch.empty(*x.shape[:-1], width, dtype=x.dtype, device=x.device)
    _geglu[(y.numel() // width, triton.cdiv(width, 1024))](x, y, width, BLOCK=1024)
    return y


def available(device: torch.device) -> bool:
    """Whether Triton runs here: one kernel is tried, and its numbers are looked at."""
    try:
        x: Any = torch.arange(8, dtype=torch.float32, device=device).view(1, 8)
        wanted = torch.tensor([0.0, 5.0, 12.0, 21.0], device=device)
        return bool((geglu(x) - wanted).abs().max() < 0.01)
    except Exception:  # whatever its compiler meets on this machine, torch can do without it
        return False
