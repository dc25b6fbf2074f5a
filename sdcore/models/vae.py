"""The VAE of Stable Diffusion (AutoencoderKL, Rombach et al. 2022): pictures <-> latents.

Outside this file latents have unit variance: the scaling factor is applied here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcore.models.layers import Attention, Downsample, ResnetBlock, Upsample, placement
from sdcore.models.tiles import tiled
from sdcore.models.vae_config import VAEConfig

_EPS = 1e-6  # of every GroupNorm in the published VAEs


@dataclass(frozen=True)
class DiagonalGaussian:
    """What the encoder says of a picture: mean and std of its latents, each [B, C, h, w]."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """A draw from it, given standard normal `noise` of its shape."""
        return self.mean + self.std * noise


class AttentionBlock(Attention):
    """Self-attention over all positions, one head, residual."""

    def __init__(self, channels: int, groups: int):
        super().__init__(channels, heads=1, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, _EPS)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = super().forward(self.group_norm(x).flatten(2).transpose(1, 2), context)
        return x + h.transpose(1, 2).unflatten(2, x.shape[-2:])


class MidBlock(nn.Module):
    """Residual block, self-attention where the config has it, residual block."""

    def __init__(self, config: VAEConfig, c: int):
        super().__init__()
        groups = config.norm_num_groups
        self.resnets = nn.ModuleList(ResnetBlock(c, c, groups, _EPS) for _ in range(2))
        if config.mid_block_add_attention:
            self.attentions = nn.ModuleList([AttentionBlock(c, groups)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        if hasattr(self, "attentions"):
            x = self.attentions[0](x)
        return self.resnets[1](x)


class Block(nn.Module):
    """Residual blocks of one resolution, then a halving or a doubling (or neither)."""

    def __init__(self, c_in: int, c_out: int, layers: int, groups: int, resample: str | None):
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(c_in if i == 0 else c_out, c_out, groups, _EPS) for i in range(layers)
        )
        if resample == "down":
            self.downsamplers = nn.ModuleList([Downsample(c_out, asymmetric=True)])
        if resample == "up":
            self.upsamplers = nn.ModuleList([Upsample(c_out)])

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        if hasattr(self, "downsamplers"):
            return self.downsamplers[0](x)
        if hasattr(self, "upsamplers"):
            return self.upsamplers[0](x)
        return x


class Encoder(nn.Module):
    """Pictures [B,3,H,W] to mean and log variance of their latents, [B,2C,h,w]."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        c = widths[0]
        for level, width in enumerate(widths):
            resample = "down" if level < len(widths) - 1 else None
            self.down_blocks.append(Block(c, width, config.layers_per_block, groups, resample))
            c = width
        self.mid_block = MidBlock(config, c)
        self.conv_norm_out = nn.GroupNorm(groups, c, _EPS)
        self.conv_out = nn.Conv2d(c, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents [B,C,h,w] to pictures [B,3,H,W]."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        (widths, layers), groups = config.decoder, config.norm_num_groups
        c = widths[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, c, 3, padding=1)
        self.mid_block = MidBlock(config, c)
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(len(widths))):
            resample = "up" if level > 0 else None
            self.up_blocks.append(Block(c, widths[level], layers + 1, groups, resample))
            c = widths[level]
        self.conv_norm_out = nn.GroupNorm(groups, c, _EPS)
        self.conv_out = nn.Conv2d(c, config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class VAE(nn.Module):
    """AutoencoderKL. `tile`: latents wider or higher than this are coded in tiles of that side."""

    tile: int | None = None

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        z = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.use_quant_conv:
            self.quant_conv = nn.Conv2d(2 * z, 2 * z, 1)
        if config.use_post_quant_conv:
            self.post_quant_conv = nn.Conv2d(z, z, 1)

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in: pictures and latents of another floating dtype are cast to it."""
        return placement(self)[1]

    def encode(self, image: Tensor) -> DiagonalGaussian:
        """image: [B, 3, H, W] in [-1, 1], H and W multiples of `config.factor`.

        Returns the DiagonalGaussian of its unit-variance latents [B, 4, H/8, W/8].
        """
        image = image.to(self.dtype)
        if self.tile is not None and max(image.shape[-2:]) > self.tile * self.config.factor:
            side = self.tile * self.config.factor
            h = tiled(self.encoder, image, side, down=self.config.factor)
        else:
            h = self.encoder(image)
        if self.config.use_quant_conv:
            h = self.quant_conv(h)
        mean, log_variance = h.chunk(2, dim=1)
        std = torch.exp(0.5 * log_variance.clamp(-30, 20))
        return DiagonalGaussian(mean * self.config.scaling_factor, std * self.config.scaling_factor)

    def decode(self, latents: Tensor) -> Tensor:
        """latents: [B, 4, h, w] of unit variance. Returns [B, 3, 8h, 8w], about [-1, 1]."""
        z = latents.to(self.dtype) / self.config.scaling_factor
        if self.config.use_post_quant_conv:
            z = self.post_quant_conv(z)
        if self.tile is not None and max(z.shape[-2:]) > self.tile:
            return tiled(self.decoder, z, self.tile, up=self.config.factor)
        return self.decoder(z)
