"""The tiny autoencoder (TAESD, Bohan 2023; diffusers' AutoencoderTiny): a VAE of 5 MB.

It reads and writes the same latents as a model's own VAE, less exactly and many times as fast.
Pictures are 0 to 1 inside and -1 to 1 outside, as everywhere in this package.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdcore.errors import InputError
from sdcore.models.layers import placement
from sdcore.models.vae import DiagonalGaussian
from sdcore.models.vae_config import TinyVAEConfig


class Block(nn.Module):
    """Three convolutions, residual."""

    def __init__(self, channels: int):
        super().__init__()
        conv = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(conv[0], nn.ReLU(), conv[1], nn.ReLU(), conv[2])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Layers(nn.Module):
    """One way, in diffusers' naming."""

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def encoder(config: TinyVAEConfig) -> Layers:
    """Pictures [B,3,8h,8w] in [0, 1] to latents [B,C,h,w]."""
    layers: list[nn.Module] = []
    widths = config.encoder_block_out_channels
    for level, (width, blocks) in enumerate(zip(widths, config.num_encoder_blocks, strict=True)):
        if level == 0:
            layers.append(nn.Conv2d(config.in_channels, width, 3, padding=1))
        else:
            layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
        layers += [Block(width) for _ in range(blocks)]
    return Layers([*layers, nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)])


def decoder(config: TinyVAEConfig) -> Layers:
    """Latents [B,C,h,w] to pictures [B,3,8h,8w] in [0, 1]."""
    widths = config.decoder_block_out_channels
    layers: list[nn.Module] = [nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)]
    layers.append(nn.ReLU())
    for width, blocks in zip(widths[:-1], config.num_decoder_blocks, strict=False):
        layers += [Block(width) for _ in range(blocks)]
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
    layers += [Block(widths[-1]) for _ in range(config.num_decoder_blocks[-1])]
    return Layers([*layers, nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)])


class TinyVAE(nn.Module):
    """AutoencoderTiny, or its decoder alone, which shows pictures and repaints none."""

    tile: int | None = None  # it needs none

    def __init__(self, config: TinyVAEConfig):
        super().__init__()
        self.config = config
        if not config.decoder_only:
            self.encoder = encoder(config)
        self.decoder = decoder(config)

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in: pictures and latents of another floating dtype are cast to it."""
        return placement(self)[1]

    def encode(self, image: Tensor) -> DiagonalGaussian:
        """image: [B, 3, H, W] in [-1, 1]. Returns its latents as a DiagonalGaussian of no width.

        Raises InputError where it has a decoder only.
        """
        if self.config.decoder_only:
            raise InputError("this VAE is a decoder alone: no picture can be given to it")
        mean = self.encoder((image.to(self.dtype) + 1) / 2) * self.config.scaling_factor
        return DiagonalGaussian(mean, torch.zeros_like(mean))

    def decode(self, latents: Tensor) -> Tensor:
        """latents: [B, 4, h, w] of unit variance. Returns [B, 3, 8h, 8w], about [-1, 1]."""
        z = latents.to(self.dtype) / self.config.scaling_factor
        return self.decoder(3 * torch.tanh(z / 3)) * 2 - 1
