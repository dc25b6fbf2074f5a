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

from functools import cache
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

_ROWS = 16  # pixels that a program of the GroupNorm holds at a time
_PROGRAMS = 528  # four for each multiprocessor of an H100


@triton.jit(do_not_specialize=["rows", "chunks", "tiles"])
def _moments(
    x, moments, rows, C, width, chunks, tiles, BLOCK: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """Mean and sum of squared deviations of every channel over one chunk of rows."""
    chunk, block, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    lane = tl.arange(0, BLOCK)
    col = block * width + lane
    inside = (lane < width) & (col < C)
    first = chunk * tiles * ROWS
    begin = x + (b.to(tl.int64) * rows + first) * C
    # Each of [ROWS, BLOCK] lanes for itself (Welford 1962), and all lanes together at the end.
    mean = tl.zeros([ROWS, BLOCK], tl.float32)
    squares = tl.zeros([ROWS, BLOCK], tl.float32)
    for tile in range(tiles):
        row = tile * ROWS + tl.arange(0, ROWS)
        mask = (first + row < rows)[:, None] & inside[None, :]
        value = tl.load(begin + row[:, None] * C + col[None, :], mask, 0.0).to(tl.float32)
        delta = tl.where(mask, value - mean, 0.0)
        mean += delta / (tile + 1.0)
        squares += delta * tl.where(mask, value - mean, 0.0)
    left = rows - first - tl.arange(0, ROWS)  # of which every ROWS-th row was a lane's own
    seen = tl.minimum(tl.maximum((left + ROWS - 1) // ROWS, 0), tiles).to(tl.float32)[:, None]
    whole = tl.sum(mean * seen, 0) / tl.minimum(rows - first, tiles * ROWS).to(tl.float32)
    off = mean - whole[None, :]
    out = moments + (b * chunks + chunk) * 2 * C + col
    tl.store(out, whole, inside)
    tl.store(out + C, tl.sum(squares + off * off * seen, 0), inside)


@triton.jit(do_not_specialize=["rows", "size", "chunks", "chunk_rows", "shift_stride", "eps"])
def _scales(
    moments, shift, weight, bias, scales, rows, C, size, chunks, chunk_rows, shift_stride, eps,
    SIZE: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """scale and offset of every channel of a group: norm(x + shift) = x * scale + offset."""
    group, b = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, SIZE)
    col = group * size + lane
    inside = lane < size
    lift = tl.load(shift + b * shift_stride + col, inside, 0.0)
    every = moments + b * chunks * 2 * C + col
    number = rows * size.to(tl.float32)
    total = tl.zeros([CHUNKS, SIZE], tl.float32)
    for start in range(0, chunks, CHUNKS):
        which = start + tl.arange(0, CHUNKS)
        mask = (which < chunks)[:, None] & inside[None, :]
        seen = tl.minimum(tl.maximum(rows - which * chunk_rows, 0), chunk_rows).to(tl.float32)
        means = tl.load(every[None, :] + which[:, None] * 2 * C, mask, 0.0) + lift[None, :]
        total += tl.where(mask, means * seen[:, None], 0.0)
    mean = tl.sum(tl.sum(total, 0), 0) / number
    total = tl.zeros([CHUNKS, SIZE], tl.float32)
    for start in range(0, chunks, CHUNKS):
        which = start + tl.arange(0, CHUNKS)
        mask = (which < chunks)[:, None] & inside[None, :]
        seen = tl.minimum(tl.maximum(rows - which * chunk_rows, 0), chunk_rows).to(tl.float32)
        place = every[None, :] + which[:, None] * 2 * C
        off = tl.load(place, mask, 0.0) + lift[None, :] - mean
        squares = tl.load(place + C, mask, 0.0) + off * off * seen[:, None]
        total += tl.where(mask, squares, 0.0)
    variance = tl.sum(tl.sum(total, 0), 0) / number
    scale = tl.load(weight + col, inside, 0.0) / tl.sqrt(variance + eps)
    out = scales + b * 3 * C + col
    tl.store(out, lift - mean, inside)
    tl.store(out + C, scale, inside)
    tl.store(out + 2 * C, tl.load(bias + col, inside, 0.0), inside)


@triton.jit(do_not_specialize=["rows", "tiles", "silu"])
def _normalise(
    x, scales, y, rows, C, width, tiles, silu, BLOCK: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    chunk, block, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    lane = tl.arange(0, BLOCK)
    col = block * width + lane
    inside = (lane < width) & (col < C)
    known = scales + b * 3 * C + col
    lift = tl.load(known, inside, 0.0)[None, :]
    scale = tl.load(known + C, inside, 0.0)[None, :]
    offset = tl.load(known + 2 * C, inside, 0.0)[None, :]
    first = chunk * tiles * ROWS
    begin = (b.to(tl.int64) * rows + first) * C
    for tile in range(tiles):
        row = tile * ROWS + tl.arange(0, ROWS)
        mask = (first + row < rows)[:, None] & inside[None, :]
        place = row[:, None] * C + col[None, :]
        value = (tl.load(x + begin + place, mask, 0.0).to(tl.float32) + lift) * scale + offset
        value = tl.where(silu != 0, value / (1.0 + tl.exp(-value)), value)
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
    blocks = triton.cdiv(channels, width)
    wanted = max(_PROGRAMS // (batch * blocks), 1)
    tiles = triton.cdiv(triton.cdiv(rows, wanted), _ROWS)
    chunks = triton.cdiv(rows, tiles * _ROWS)
    many = 1 << max(size - 1, 0).bit_length()
    stride = 0 if len(shift) == 1 else shift.stride(0)
    moments = torch.empty(batch, chunks, 2, channels, dtype=torch.float32, device=x.device)
    scales = torch.empty(batch, 3, channels, dtype=torch.float32, device=x.device)
    y = torch.empty_like(x)
    grid = (chunks, blocks, batch)
    _moments[grid](
        x, moments, rows, channels, width, chunks, tiles, BLOCK=block, ROWS=_ROWS, num_warps=4
    )
    _scales[(groups, batch)](
        moments, shift, weight, bias, scales, rows, channels, size, chunks, tiles * _ROWS, stride,
        eps, SIZE=many, CHUNKS=max(2048 // many, 16), num_warps=4,
    )  # fmt: skip
    _normalise[grid](
        x, scales, y, rows, channels, width, tiles, int(silu), BLOCK=block, ROWS=_ROWS, num_warps=4
    )
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


@triton.jit(do_not_specialize=["eps", "more"])
def _add_layer_norm(
    x, bias, residual, weight, offset, y, normed, eps, C, more, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * C
    col = tl.arange(0, BLOCK)
    mask = col < C
    value = tl.load(x + row + col, mask, 0.0).to(tl.float32)
    value += tl.load(bias + col, mask, 0.0)
    value += tl.load(residual + row + col, mask & (col < C * more), 0.0).to(tl.float32)
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
        int(residual is not None), BLOCK=triton.next_power_of_2(channels),
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
