"""The VAE on large pictures: in overlapping tiles, blended, so that memory stays bounded.

A tile sees only itself in the middle attention and in the GroupNorms' statistics, and would come
out in other colours than its neighbours. So the statistics are taken beforehand, from every k-th
pixel of the whole, which is no larger than a tile; that makes the mean difference to the whole
picture three times smaller. `scripts/seams.py` measures what is left.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def tiled(network: nn.Module, x: Tensor, tile: int, up: int = 1, down: int = 1) -> Tensor:
    """network(x) by `in_tiles`, every tile with the GroupNorm statistics of a thinned x."""
    k = -(-max(x.shape[-2:]) // tile)
    thin = x[..., ::k, ::k]
    thin = F.pad(thin, (0, -thin.shape[-1] % down, 0, -thin.shape[-2] % down), mode="replicate")
    with statistics_of(network, thin):
        return in_tiles(network, x, tile, up, down)


@contextmanager
def statistics_of(network: nn.Module, x: Tensor) -> Iterator[None]:
    """While it lasts, the GroupNorms in `network` use the statistics they had on x."""
    norms = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    seen: dict[nn.GroupNorm, tuple[Tensor, Tensor]] = {}

    def note(norm: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        assert isinstance(norm, nn.GroupNorm)
        groups = inputs[0].unflatten(1, (norm.num_groups, -1)).flatten(2).float()
        variance, mean = torch.var_mean(groups, dim=-1, correction=0)
        seen[norm] = mean, variance

    hooks = [norm.register_forward_hook(note) for norm in norms]
    network(x)
    for hook in hooks:
        hook.remove()
    try:
        for norm in norms:
            norm.forward = partial(_normalised, norm, *seen[norm])
        yield
    finally:
        for norm in norms:
            del norm.forward  # the class's own again


def _normalised(norm: nn.GroupNorm, mean: Tensor, variance: Tensor, x: Tensor) -> Tensor:
    """GroupNorm of x [B,C,H,W] with given mean and variance [B, groups]."""
    each = x.shape[1] // norm.num_groups
    scale = (variance + norm.eps).rsqrt().repeat_interleave(each, 1) * norm.weight
    shift = norm.bias - mean.repeat_interleave(each, 1) * scale
    return (x * scale[..., None, None] + shift[..., None, None]).to(x.dtype)


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
