"""The VAE: first at half size, where colours and shapes are learnt in minutes, then at full size.

A full-size autoencoder trained from nothing at f8 settles in a blur (24 dB in a trial); grown from
one at half size it does not. Both have the same latents, 16x16x4.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.train.fit import Schedule, fit, half_where_fast
from scripts.train.pictures import to_tensor
from sdcore.models import VAE, VAEConfig

FULL = VAEConfig(
    block_out_channels=(24, 48, 96, 128), layers_per_block=1, norm_num_groups=8, sample_size=128
)
HALF = replace(FULL, block_out_channels=FULL.block_out_channels[1:], sample_size=64)


def new_vae(config: VAEConfig) -> VAE:
    """A VAE with fresh weights whose posterior starts narrow: log-variance -5."""
    vae = VAE(config)
    with torch.no_grad():
        z = config.latent_channels
        vae.quant_conv.weight.copy_(torch.eye(2 * z)[:, :, None, None])
        vae.quant_conv.bias.zero_()
        vae.post_quant_conv.weight.copy_(torch.eye(z)[:, :, None, None])
        vae.post_quant_conv.bias.zero_()
        vae.encoder.conv_out.weight[z:] *= 0.1
        vae.encoder.conv_out.bias[z:] = -5.0
    return vae


def grow(half: VAE) -> VAE:
    """The full-size VAE whose inner levels are those of `half`; one level is new on either end."""
    full = new_vae(FULL)
    state, inner = full.state_dict(), half.state_dict()
    for key, value in inner.items():
        parts = key.split(".")
        if parts[:2] == ["encoder", "down_blocks"]:  # level 0 of the half is level 1 of the full
            parts[2] = str(int(parts[2]) + 1)
        name = ".".join(parts)
        if name in state and state[name].shape == value.shape:
            state[name] = value
    full.load_state_dict(state)
    return full


def importance(x: Tensor) -> Tensor:
    """How much each pixel counts, [B, 1, H, W], 1 on the average: more where there is detail.

    Sky and meadow fill most of a picture and are learnt at once; the eyes look at the cat.
    """
    detail = (x - F.avg_pool2d(x, 9, 1, 4)).abs().mean(dim=1, keepdim=True)
    detail = F.avg_pool2d(detail, 9, 1, 4)
    weight = 1 + 4 * (detail / detail.mean(dim=(1, 2, 3), keepdim=True)).clamp(max=4)
    return weight / weight.mean(dim=(1, 2, 3), keepdim=True)


def reconstruction_loss(y: Tensor, x: Tensor, sharp: bool) -> Tensor:
    """Squared error where it counts for PSNR, absolute error and edges where it counts for eyes."""
    if sharp:
        root = importance(x).sqrt()  # squared below; absolute errors get the root only
        x, y = x * root, y * root

    def edges(image: Tensor) -> tuple[Tensor, Tensor]:
        return image.diff(dim=-1), image.diff(dim=-2)

    edge = sum((a - b).abs().mean() for a, b in zip(edges(y), edges(x), strict=True))
    coarse = F.mse_loss(F.avg_pool2d(y, 4), F.avg_pool2d(x, 4))
    return 8 * F.mse_loss(y, x) + 0.5 * F.l1_loss(y, x) + 0.25 * edge + 4 * coarse


def train(
    vae: VAE,
    pictures: np.ndarray,
    schedule: Schedule,
    batch: int,
    checkpoint: Path,
    kl: float = 1e-3,
    guided: int = 0,
    sharp: bool = False,
) -> None:
    """Train on `pictures`; for the first `guided` steps three channels are pulled to the colours.

    Without the pull a trial's latents lost one axis of colour (yellow became orange). `sharp`:
    detail counts more than plain areas.
    """
    device = next(vae.parameters()).device
    scale, size = vae.config.scaling_factor, vae.config.sample_size

    def loss(step: int) -> tuple[Tensor, str]:
        rng = np.random.default_rng([7, step])
        chosen = np.sort(rng.choice(len(pictures), batch, replace=False))
        x = to_tensor(pictures[chosen]).to(device, memory_format=torch.channels_last)
        x = F.avg_pool2d(x, x.shape[-1] // size)
        code = vae.encode(x)
        mean, std = code.mean.float() / scale, code.std.float() / scale
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(step)).to(device)
        y = vae.decode((mean + std * noise) * scale).float()
        divergence = 0.5 * (mean**2 + std**2 - 1 - 2 * std.log()).mean()
        total = reconstruction_loss(y, x, sharp) + kl * divergence
        if step < guided:
            colours = 1.5 * F.adaptive_avg_pool2d(x, mean.shape[-2:])
            total = total + 0.1 * F.mse_loss(mean[:, :3], colours)
        return total, f"{psnr(y, x):.2f} dB"

    fit(vae, loss, schedule, checkpoint)


def psnr(y: Tensor, x: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1]; of the mean squared error."""
    return -10 * F.mse_loss(y.detach().clamp(-1, 1) / 2, x / 2).log10().item()


@torch.no_grad()
def encode_all(vae: VAE, pictures: np.ndarray, batch: int = 50) -> tuple[Tensor, Tensor]:
    """Mean and std of every picture's latents, float16 [N, 4, 16, 16]."""
    device = next(vae.parameters()).device
    means, stds = [], []
    for start in range(0, len(pictures), batch):
        x = to_tensor(pictures[start : start + batch])
        x = x.to(device, memory_format=torch.channels_last)
        with half_where_fast(device.type):
            code = vae.encode(x)
        means.append(code.mean.half().cpu().contiguous())
        stds.append(code.std.half().cpu().contiguous())
    return torch.cat(means).contiguous(), torch.cat(stds).contiguous()


@torch.no_grad()
def whiten(vae: VAE, pictures: np.ndarray) -> None:
    """Fold a shift and a scale per channel into the 1x1 convs: unit variance at scaling_factor.

    The pictures that the VAE decodes do not change by it (1e-6); its latents do.
    """
    means, _ = encode_all(vae, pictures)
    means = means.float() / vae.config.scaling_factor
    shift = means.mean(dim=(0, 2, 3)).to(vae.quant_conv.weight.device)
    std = means.std(dim=(0, 2, 3)).to(shift.device)
    gain = 1 / (std * vae.config.scaling_factor)
    z = len(gain)
    quant, post = vae.quant_conv, vae.post_quant_conv
    assert isinstance(quant.bias, nn.Parameter)
    assert isinstance(post.bias, nn.Parameter)
    post.bias += (post.weight[:, :, 0, 0] * shift).sum(dim=1)
    post.weight /= gain[None, :, None, None]
    quant.weight[:z] *= gain[:, None, None, None]
    quant.bias[:z] = (quant.bias[:z] - shift) * gain
    quant.bias[z:] += 2 * gain.log()
