"""The VAE on large pictures: in overlapping tiles, blended, so that memory stays bounded.

A tile sees only itself in the GroupNorms' statistics and in the middle attention, so a picture in
tiles is not the picture whole: the overlap hides the seams, `scripts/seams.py` measures what is
left.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

OVERLAP = 0.25  # share of a tile that its neighbour draws too


def spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """(start, stop) of tiles that cover 0 .. length, neighbours sharing at least `overlap`.

    >>> spans(100, 64, 16)
    [(0, 64), (36, 100)]
    """
    if length <= tile:
        return [(0, length)]
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    return [(start, start + tile) for start in starts]


def in_tiles(
    function: Callable[[Tensor], Tensor], x: Tensor, tile: int, up: int = 1, down: int = 1
) -> Tensor:
    """function(x) for x [B,C,H,W], tile by tile.

    function: maps [B,C,h,w] to [B,D,h * up / down,w * up / down].
    tile: side of a tile in x's pixels, a multiple of 4 * down.

    Where tiles overlap the weight of each falls linearly towards its edge.
    """
    overlap = int(tile * OVERLAP) // down * down
    total = weights = None
    for top, bottom in spans(x.shape[-2], tile, overlap):
        for left, right in spans(x.shape[-1], tile, overlap):
            part = function(x[..., top:bottom, left:right])
            if total is None or weights is None:
                size = [side * up // down for side in x.shape[-2:]]
                total = part.new_zeros(*part.shape[:2], *size)
                weights = part.new_zeros(*size)
            area = [slice(side * up // down, end * up // down)
                    for side, end in ((top, bottom), (left, right))]  # fmt: skip
            rows, columns = (
                _ramp(n, overlap * up // down, first > 0, last < whole, part)
                for n, first, last, whole in (
                    (part.shape[-2], top, bottom, x.shape[-2]),
                    (part.shape[-1], left, right, x.shape[-1]),
                )
            )
            weight = rows[:, None] * columns
            total[(..., *area)] += part * weight
            weights[tuple(area)] += weight
    assert total is not None
    assert weights is not None
    return total / weights


def _ramp(length: int, overlap: int, before: bool, after: bool, like: Tensor) -> Tensor:
    """1 in the middle, falling towards each side that has a neighbour; never 0."""
    ramp = like.new_ones(length)
    rise = torch.arange(1, overlap + 1, dtype=like.dtype, device=like.device) / (overlap + 1)
    if before:
        ramp[:overlap] *= rise
    if after:
        ramp[length - overlap :] *= rise.flip(0)
    return ramp


def seams(whole: Tensor, tiled: Tensor) -> Iterator[float]:
    """Largest and mean absolute difference of two pictures, in the 256 levels of a PNG."""
    difference = (whole.clamp(-1, 1) - tiled.clamp(-1, 1)).abs() * 127.5
    yield difference.max().item()
    yield difference.mean().item()
