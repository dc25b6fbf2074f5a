"""The UNet of Stable Diffusion (Rombach et al. 2022): noisy latents, time, text -> prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcore.models.layers import Attention, Downsample, ResnetBlock, Upsample
from sdcore.models.unet_config import UNetConfig

# (stage of the way up, backbone, skip) -> both, as they are joined
Weigh = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]


def sinusoid(t: Tensor, dim: int, flip_sin_to_cos: bool = True, freq_shift: float = 0) -> Tensor:
    """Sinusoidal embedding of numbers t: [N] -> [N, dim], float32 (Vaswani et al. 2017, 3.5)."""
    half = dim // 2
    rates = torch.arange(half, dtype=torch.float32, device=t.device) / (half - freq_shift)
    angle = t.float()[:, None] * torch.exp(-math.log(10000) * rates)
    sin, cos = angle.sin(), angle.cos()
    return torch.cat([cos, sin] if flip_sin_to_cos else [sin, cos], dim=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers; `cond_proj` adds a condition to the input (guidance-distilled UNets)."""

    def __init__(self, dim_in: int, dim: int, dim_cond: int | None = None):
        super().__init__()
        if dim_cond is not None:
            self.cond_proj = nn.Linear(dim_cond, dim_in, bias=False)
        self.linear_1 = nn.Linear(dim_in, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        if cond is not None:
            x = x + self.cond_proj(cond)
        return self.linear_2(F.silu(self.linear_1(x)))


class GEGLU(nn.Module):
    """hidden * GELU(gate), both of one linear layer (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        hidden, gate = self.proj(x).chunk(2, dim=-1)
        return hidden * F.gelu(gate)


class FeedForward(nn.Module):
    """[B, L, D] -> [B, L, D], four times as wide inside."""

    def __init__(self, dim: int):
        super().__init__()
        # net.1 is a dropout in the published layout; it holds no key and does nothing here.
        self.net = nn.ModuleList([GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    """Self-attention, attention to the text, feed-forward; each pre-normed and residual."""

    def __init__(self, dim: int, heads: int, context_dim: int, upcast: bool = False):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads, upcast=upcast)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, heads, context_dim, upcast=upcast)
        self.norm3, self.ff = nn.LayerNorm(dim), FeedForward(dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer2D(nn.Module):
    """Transformer blocks over the H*W positions of a feature map."""

    def __init__(self, config: UNetConfig, dim: int, heads: int, depth: int):
        super().__init__()
        self.linear = config.use_linear_projection
        self.norm = nn.GroupNorm(config.norm_num_groups, dim, eps=1e-6)
        self.proj_in = nn.Linear(dim, dim) if self.linear else nn.Conv2d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(dim, heads, config.cross_attention_dim, config.upcast_attention)
            for _ in range(depth)
        )
        self.proj_out = nn.Linear(dim, dim) if self.linear else nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm(x)
        if not self.linear:
            h = self.proj_in(h)
        h = h.flatten(2).transpose(1, 2)  # [B, C, H, W] -> [B, H*W, C]
        if self.linear:
            h = self.proj_in(h)
        for block in self.transformer_blocks:
            h = block(h, context)
        if self.linear:
            h = self.proj_out(h)
        h = h.transpose(1, 2).unflatten(2, x.shape[-2:])
        return x + (h if self.linear else self.proj_out(h))


class DownBlock(nn.Module):
    """Residual blocks of one resolution, each followed by a transformer or none; then a halving."""

    def __init__(self, config: UNetConfig, level: int, c_in: int, time_dim: int):
        super().__init__()
        c, groups, eps = config.block_out_channels[level], config.norm_num_groups, config.norm_eps
        self.resnets = nn.ModuleList(
            ResnetBlock(c_in if i == 0 else c, c, groups, eps, time_dim)
            for i in range(config.layers[level])
        )
        if config.down_block_types[level].startswith("CrossAttn"):
            self.attentions = nn.ModuleList(
                Transformer2D(config, c, config.heads[level], depth)
                for depth in config.down_depths[level]
            )
        if level < len(config.block_out_channels) - 1:
            self.downsamplers = nn.ModuleList([Downsample(c)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> list[Tensor]:
        """Returns every output that the way up will want; the last goes on down."""
        outputs = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x, context)
            outputs.append(x)
        if hasattr(self, "downsamplers"):
            outputs.append(self.downsamplers[0](x))
        return outputs


class MidBlock(nn.Module):
    """Residual block, transformer, residual block; where it has no transformer, the first alone."""

    def __init__(self, config: UNetConfig, time_dim: int):
        super().__init__()
        c, groups, eps = config.block_out_channels[-1], config.norm_num_groups, config.norm_eps
        depth = config.mid_depth
        count = 1 if depth is None else 2
        self.resnets = nn.ModuleList(ResnetBlock(c, c, groups, eps, time_dim) for _ in range(count))
        if depth is not None:
            self.attentions = nn.ModuleList([Transformer2D(config, c, config.heads[-1], depth)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        x = self.resnets[0](x, time)
        if not hasattr(self, "attentions"):
            return x
        return self.resnets[1](self.attentions[0](x, context), time)


class UpBlock(nn.Module):
    """The same on the way up, each block with a skip of the way down. The UNet doubles."""

    def __init__(
        self, config: UNetConfig, level: int, c_in: int, c_skips: list[int], time_dim: int
    ):
        """`level` counts as the way down does; c_skips: channels of the skips, as consumed."""
        super().__init__()
        c, groups, eps = config.block_out_channels[level], config.norm_num_groups, config.norm_eps
        self.resnets = nn.ModuleList(
            ResnetBlock((c_in if i == 0 else c) + skip, c, groups, eps, time_dim)
            for i, skip in enumerate(c_skips)
        )
        self.stage = len(config.block_out_channels) - 1 - level  # as the way up counts
        if config.up_block_types[self.stage].startswith("CrossAttn"):
            self.attentions = nn.ModuleList(
                Transformer2D(config, c, config.heads[level], depth)
                for depth in config.up_depths[self.stage]
            )
        if level > 0:
            self.upsamplers = nn.ModuleList([Upsample(c)])

    def forward(
        self,
        x: Tensor,
        skips: list[Tensor],
        time: Tensor,
        context: Tensor,
        weigh: Weigh | None = None,
    ) -> Tensor:
        for i, (resnet, skip) in enumerate(zip(self.resnets, skips, strict=True)):
            if weigh is not None:
                x, skip = weigh(self.stage, x, skip)
            x = resnet(torch.cat([x, skip], dim=1), time)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x, context)
        return x


class UNet(nn.Module):
    """UNet2DConditionModel in the shapes of SD 1.x, 2.x, SDXL, their inpainting and smaller kin.

    freeu: what is done to backbone and skip before they are joined (`sdcore.models.freeu`).
    """

    freeu: Weigh | None = None

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        widths = config.block_out_channels
        time_dim = 4 * widths[0]
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], time_dim, config.time_cond_proj_dim)
        if config.addition_embed_type is not None:
            self.add_embedding = TimestepEmbedding(config.added_dims[0], time_dim)

        self.down_blocks = nn.ModuleList()
        c, c_skips = widths[0], [widths[0]]
        for level, width in enumerate(widths):
            self.down_blocks.append(DownBlock(config, level, c, time_dim))
            c = width
            c_skips += [c] * (config.layers[level] + (level < len(widths) - 1))
        if config.mid_block_type is not None:
            self.mid_block = MidBlock(config, time_dim)
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(len(widths))):
            popped = [c_skips.pop() for _ in range(config.layers[level] + 1)]
            self.up_blocks.append(UpBlock(config, level, c, popped, time_dim))
            c = widths[level]
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, c, config.norm_eps)
        self.conv_out = nn.Conv2d(c, config.out_channels, 3, padding=1)

    def embed_time(self, t: Tensor, added: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """SiLU of the time embedding, [B, 4 * widths[0]]; every residual block starts from it."""
        config = self.config
        wave = sinusoid(t, config.block_out_channels[0], config.flip_sin_to_cos, config.freq_shift)
        scale = added.get("timestep_cond")
        scale = None if scale is None else scale.to(dtype)
        embedding = self.time_embedding(wave.to(dtype), scale)
        if config.addition_embed_type is not None:
            ids = sinusoid(added["time_ids"].flatten(), config.added_dims[1])
            ids = ids.unflatten(0, added["time_ids"].shape).flatten(1)
            vector = torch.cat([added["text_embeds"].to(dtype), ids.to(dtype)], dim=-1)
            embedding = embedding + self.add_embedding(vector)
        return F.silu(embedding)

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        context: Tensor,
        extra: Tensor | None = None,
        **added: Tensor,
    ) -> Tensor:
        """The raw prediction (eps, v or x0, as the model was trained).

        Args:
            x: scaled noisy latents [B, 4, h, w].
            t: training timestep, a number or [B]; fractional allowed.
            context: text embeddings [B, L, cross_attention_dim].
            extra: further input channels of an inpainting UNet [B, 5, h, w]: the mask (1 =
                repaint) and the masked picture's latents, not scaled.
            added: SDXL's `text_embeds` [B, P] and `time_ids` [B, 6 or 5];
                `timestep_cond` [B, time_cond_proj_dim] for guidance-distilled models.

        Returns:
            [B, out_channels, h, w] in x's dtype.
        """
        if extra is not None:
            x = torch.cat([x, extra.to(x)], dim=1)
        t = torch.as_tensor(t, dtype=torch.float32, device=x.device).expand(len(x))
        time = self.embed_time(t, added, x.dtype)
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            skips += block(skips[-1], time, context)
        x = skips[-1]
        if hasattr(self, "mid_block"):
            x = self.mid_block(x, time, context)
        for block in self.up_blocks:
            assert isinstance(block, UpBlock)
            popped = [skips.pop() for _ in block.resnets]
            x = block(x, popped, time, context, self.freeu)
            if hasattr(block, "upsamplers"):
                x = block.upsamplers[0](x, skips[-1].shape[-2:])
        return self.conv_out(F.silu(self.conv_norm_out(x)))
