"""What the UNet and the VAE share: residual block, attention, down- and upsampling.

Parameter names are the published keys: `norm1`, `conv1`, `to_q`, `to_out.0` ...
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def placement(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where and in what `module` computes: where its weights are, unless they only visit there.

    `sdcore.stored_weights` keeps some elsewhere, and notes the truth as the module's `placement`.
    """
    first = next(module.parameters())
    return getattr(module, "placement", (first.device, first.dtype))


# Where torch's attention keeps the scores q k^T in float32 whatever q and k are. On the CPU a test
# shows it; on CUDA fused kernels sum in float32, and torch documents it of the plain one.
FLOAT32_SCORES = ("cpu", "cuda")


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    causal: bool = False,
    rows: int | None = None,
) -> Tensor:
    """Multi-head attention, softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1).

    q: [B, L, D], k and v: [B, S, D], D = heads * d. Returns [B, L, D].
    rows: how many of the L queries at a time, where the memory of [B, heads, L, S] is short; each
        row is a softmax of its own, so that the result is the same but for rounding.
    """
    if rows is not None and q.shape[1] > rows and not causal:
        return torch.cat([attend(part, k, v, heads) for part in q.split(rows, dim=1)], dim=1)

    def split(x: Tensor) -> Tensor:  # [B, L, D] -> [B, heads, L, d]
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    out = F.scaled_dot_product_attention(split(q), split(k), split(v), is_causal=causal)
    return out.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Attention with projections. `context_dim` None: self-attention over x itself.

    rows: see `attend`. upcast: scores are float32 at least, since q k^T may overflow in float16.
    """

    rows: int | None = None

    def __init__(
        self,
        dim: int,
        heads: int,
        context_dim: int | None = None,
        bias: bool = False,
        upcast: bool = False,
    ):
        super().__init__()
        self.heads = heads
        self.upcast = upcast
        source = dim if context_dim is None else context_dim
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_k = nn.Linear(source, dim, bias=bias)
        self.to_v = nn.Linear(source, dim, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x: [B, L, D]; context: [B, S, context_dim] or None. Returns [B, L, D]."""
        source = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)
        if self.upcast and q.dtype == torch.float16 and q.device.type not in FLOAT32_SCORES:
            q, k, v = q.float(), k.float(), v.float()
        out = attend(q, k, v, self.heads, rows=self.rows)
        return self.to_out[0](out.to(x.dtype))


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU, conv, twice, with the time embedding added in between (UNet only)."""

    def __init__(self, c_in: int, c_out: int, groups: int, eps: float, time_dim: int | None = None):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in, eps)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        if time_dim is not None:
            self.time_emb_proj = nn.Linear(time_dim, c_out)
        self.norm2 = nn.GroupNorm(groups, c_out, eps)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.conv_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x: [B, c_in, H, W]; time: SiLU of the time embedding [B, time_dim], or None."""
        h = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            h = h + self.time_emb_proj(time)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x) + h


class Downsample(nn.Module):
    """Conv with stride 2. The VAE pads right and bottom only, the UNet on all sides."""

    def __init__(self, channels: int, asymmetric: bool = False):
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a conv."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: torch.Size | None = None) -> Tensor:
        """`size`: the (H, W) to reach, where the skip's size was odd and doubling overshoots."""
        if size is None or tuple(size) == (2 * x.shape[-2], 2 * x.shape[-1]):
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(F.interpolate(x, size=tuple(size), mode="nearest"))
