"""The layers on a CPU: weights packed once for oneDNN, additions and GELU done in its products.

torch keeps these operators for its compiler (`torch.ops.mkldnn`); they are nobody's promise, so
they are looked for, tried, and compared with the plain layers before anything is left to them.
What is packed takes the weight's place: see `sdcore.models.reordered`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcore.engine.ops import Add, ConvNorm, Norm, Ops, Pointwise, padding
from sdcore.free_memory import give_back
from sdcore.models.reordered import Reorder, dense, reorder

_DNN: Any = torch.ops.mkldnn
WIDE = 512  # channels beyond which weights take more memory than the maps of their doubling
LARGE = 1 << 20  # numbers of a weight whose place is given back at once
LONG = 1 << 14  # pixels from which torch's sums over channels-last maps lose digits
MANY = 1024  # tokens from which `_attend` is worth its calls
ROWS, SOME = 256, 17  # queries at a time; every which key tells about how large the scores are


class CpuOps(Ops):
    """With oneDNN's packed weights."""

    name, reorders = "onednn", True

    def conv(self, layer: nn.Conv2d) -> Add:
        run = _conv(layer)
        return lambda x, add=None: run(x, layer.bias, add)

    def conv_norm(self, layer: nn.Conv2d, norm: nn.GroupNorm) -> ConvNorm:
        run, after = _conv(layer), self.norm(norm, silu=True)

        def both(x: Tensor, shift: Tensor | None) -> Tensor:
            if shift is None:
                return after(run(x, layer.bias))
            if len(shift) == 1:  # the same for every row: a bias
                return after(run(x, shift[0].to(x.dtype)))
            return after(run(x, None).add_(shift[:, :, None, None].to(x.dtype)))

        return both

    def norm(self, layer: nn.GroupNorm, silu: bool) -> Norm:
        plain = super().norm(layer, silu)

        def run(x: Tensor) -> Tensor:
            if x.dtype != torch.float32 or x.shape[-2:].numel() < LONG:
                return plain(x)
            y = _group_norm(x, layer)
            return F.silu(y, inplace=True) if silu else y

        return run

    def double(self, layer: nn.Conv2d) -> Callable[[Tensor, torch.Size | None], Tensor]:
        """Without making the doubled map, where that is worth further weights: see `_sub_pixel`."""
        if layer.in_channels > WIDE:
            return super().double(layer)
        quick = _sub_pixel(layer)  # before the weight lies in another order
        plain = super().double(layer)

        def run(x: Tensor, size: torch.Size | None = None) -> Tensor:
            even = size is None or tuple(size) == (2 * x.shape[-2], 2 * x.shape[-1])
            return quick(x) if even else plain(x, size)

        return run

    def linear(self, *layers: Pointwise) -> Add:
        (weight,) = _reordered(layers, "linear", lambda weight: (_packed(weight),))
        biases = [layer.bias for layer in layers if layer.bias is not None]
        bias = torch.cat(biases) if biases else None

        def run(x: Tensor, add: Tensor | None = None) -> Tensor:
            if add is None:
                return _DNN._linear_pointwise(x, weight, bias, "none", [], "")
            return _DNN._linear_pointwise.binary(x, add.contiguous(), weight, bias, "add")

        return run

    def geglu(self, layer: nn.Linear) -> Norm:
        value, gate = _reordered(
            [layer], "halves", lambda weight: tuple(_packed(half) for half in weight.chunk(2))
        )
        shift, lift = (half.contiguous() for half in layer.bias.chunk(2))

        def run(x: Tensor) -> Tensor:
            factor = _DNN._linear_pointwise(x, gate, lift, "gelu", [], "none")
            return _DNN._linear_pointwise.binary(x, factor, value, shift, "mul")

        return run

    def settle(self) -> None:
        give_back()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """By products of matrices where torch's own attention is slower: see `_attend`."""
        many = min(q.shape[1], k.shape[1]) >= MANY
        if many and q.dtype == torch.bfloat16 and _halves_without_tiles():
            return _attend(q, k, v, heads)
        return super().attend(q, k, v, heads)


@cache
def _halves_without_tiles() -> bool:
    """Whether this processor multiplies bfloat16 itself, but has no tiles for it (AMX).

    With tiles torch's attention is the faster one; on others bfloat16 is emulated.
    """
    cpu: Any = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() and not cpu._is_amx_tile_supported())


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention in bfloat16, some queries at a time, so that their scores stay in the cache.

    Products are rounded once, scores too. So that this costs little, a query's scores are rounded
    after the largest of some of them has been taken off, as softmax does anyway with the largest of
    all: the scores that count are then near 0, where bfloat16 is fine. Two thirds of the time of
    torch's own on Zen 4, 1.4 times its rounding where scores are as wide as 1, 3 times where 10.
    """
    scale = (q.shape[-1] // heads) ** -0.5
    each = [x.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous() for x in (q, k, v)]
    out = torch.empty_like(each[0])
    for queries, keys, values, outs in zip(*(x.flatten(0, 1) for x in (*each, out)), strict=True):
        keys, some = keys.t(), keys[::SOME].t()
        for rows, into in zip(queries.split(ROWS), outs.split(ROWS), strict=True):
            least = (rows @ some).amax(-1, keepdim=True).mul_(-scale)
            scores = torch.addmm(least, rows, keys, alpha=scale)
            torch.mm(scores.softmax(-1), values, out=into)
    return out.transpose(1, 2).flatten(2)


def _group_norm(x: Tensor, layer: nn.GroupNorm) -> Tensor:
    """GroupNorm of a large channels-last map, summed row by row.

    torch sums such a map in one go: at 512 x 512 its float32 ends 3e-5 away, this 6e-8, as fast.
    """
    rows = x.permute(0, 2, 3, 1)
    mean = rows.mean(2).mean(1)  # [B,C]
    square = torch.linalg.vector_norm(rows, dim=2).square().sum(1) / x.shape[-2:].numel()
    each, squares = (t.unflatten(1, (layer.num_groups, -1)) for t in (mean, square))
    mean = each.mean(2, keepdim=True)
    var = squares.mean(2, keepdim=True) - mean.square()
    scale = (var + layer.eps).rsqrt().expand_as(each).flatten(1) * layer.weight
    shift = layer.bias - mean.expand_as(each).flatten(1) * scale
    return torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])


def _conv(layer: nn.Conv2d) -> Any:
    """(x, bias, add) -> the conv with this bias, + add."""
    where = (padding(layer), layer.stride, layer.dilation, layer.groups)
    (weight,) = _reordered(
        [layer], where, lambda weight: (_DNN._reorder_convolution_weight(weight, *where),)
    )

    def run(x: Tensor, bias: Tensor | None, add: Tensor | None = None) -> Tensor:
        if add is None:
            return _DNN._convolution_pointwise(x, weight, bias, *where, "none", [], "")
        return _DNN._convolution_pointwise.binary(
            x, add, weight, bias, *where, "add", None, None, [], None
        )

    return run


def _reordered(layers: Sequence[nn.Module], order: Hashable, make: Reorder) -> tuple[Tensor, ...]:
    """`reorder`, after which the places of the plain weights are given back.

    oneDNN's weights are a few bytes longer, and do not fit into the places that those before have
    left: without this a network would take its size twice.
    """
    parts = reorder(layers, order, make)
    if sum(part.numel() for part in parts) > LARGE:
        give_back()
    return parts


def _sub_pixel(layer: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    """x -> the conv of 3 x 3 of x doubled by nearest neighbours, with 4 products for its 9.

    Two of the three rows that a row of the output reads are the same row of x, so their weights
    are summed, and columns alike (Shi et al. 2016, arXiv 1609.05158, the other way round): four
    convs of 2 x 2, one for each place in a pixel of x.
    """
    rows = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])  # place, tap, row
    weight = torch.einsum("atr,bsc,oirc->aboits", rows, rows, layer.weight.detach().float())
    with torch.random.fork_rng(devices=[]):
        conv = nn.Conv2d(layer.in_channels, 4 * layer.out_channels, 2, padding=1)
    conv.weight.data = weight.flatten(0, 2).to(layer.weight.dtype)
    assert layer.bias is not None
    run, bias = _conv(conv), layer.bias.repeat(4)

    def doubled(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        whole = run(x, bias).unflatten(1, (2, 2, -1))
        shape = (len(x), layer.out_channels, 2 * height, 2 * width)
        out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
        for a in (0, 1):
            for b in (0, 1):
                out[..., a::2, b::2] = whole[:, a, b, :, a : a + height, b : b + width]
        return out

    return doubled


def _packed(weight: Tensor) -> Tensor:
    """Of [out, in], or of a conv of 1 x 1."""
    return _DNN._reorder_linear_weight(weight.flatten(1).contiguous())


@cache
def available(dtype: torch.dtype) -> bool:
    """Whether this torch packs and unpacks weights of this dtype here, and to the right numbers."""
    if not torch.backends.mkldnn.is_available() or dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        rng = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(*shape, generator=rng).to(dtype)  # noqa: E731
        with torch.random.fork_rng(devices=[]):  # new layers draw, and nobody else's numbers
            conv, linear = nn.Conv2d(16, 32, 3, padding=1), nn.Linear(32, 64)
        for layer in (conv, linear):
            assert layer.bias is not None
            layer.weight.data, layer.bias.data = draw(*layer.weight.shape), draw(len(layer.weight))
            layer.requires_grad_(False)
        x, add = draw(2, 16, 5, 5), draw(2, 32, 5, 5)
        x, add = (t.contiguous(memory_format=torch.channels_last) for t in (x, add))
        rows, ops, plain = draw(2, 3, 32), CpuOps(), Ops()
        with torch.inference_mode(False), torch.no_grad():
            right = (
                plain.conv(conv)(x, add),
                plain.linear(linear)(rows),
                plain.geglu(linear)(rows),
            )
            before = [layer.weight.detach().clone() for layer in (conv, linear)]
            ours = [ops.conv(conv)(x, add), *(f(linear)(rows) for f in (ops.linear, ops.geglu))]
            ops.linear(linear)(rows, draw(2, 3, 64))
            after = [dense(layer.weight) for layer in (conv, linear)]
        most = 1e-5 if dtype == torch.float32 else 2e-2
        near = [bool((a - b).norm() <= most * b.norm()) for a, b in zip(ours, right, strict=True)]
        return all(near) and all(map(torch.equal, before, after))
    except (RuntimeError, AttributeError, TypeError):
        return False
