"""The UNet, and the text encoder with it: learning to see the noise in noisy latents."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from scripts.train.fit import Schedule, fit
from scripts.train.pictures import description
from scripts.train.words import Reader, encode, vary
from scripts.train.world import caption
from sdcore.models import TextEncoder, UNet, UNetConfig
from sdcore.schedulers.noise_schedule import SD_PROCESS, STABLE_DIFFUSION
from sdcore.training.loss import squared_error

TYPES = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
CONFIG = UNetConfig(
    sample_size=16,
    block_out_channels=(96, 160, 208),
    down_block_types=TYPES,
    up_block_types=tuple(t.replace("Down", "Up") for t in reversed(TYPES)),
    layers_per_block=1,
    attention_head_dim=(3, 5, 4),
    cross_attention_dim=128,
    norm_num_groups=16,
)


def new_unet(config: UNetConfig = CONFIG) -> UNet:
    """A UNet whose residual branches and output start at zero, so that it starts as a skip."""
    unet = UNet(config)
    for name, p in unet.named_parameters():
        if name.endswith(("conv2.weight", "proj_out.weight", "conv_out.weight")):
            nn.init.zeros_(p)
    return unet


def weight(snr: Tensor, most: float = 5) -> Tensor:
    """Loss weight of the eps prediction at a signal-to-noise ratio, any shape.

    min(1, 5/snr) is min-SNR-5 (Hang et al. 2023): little for what is nearly clean. Below snr 1
    it grows as 1/snr up to `most`, because that is where the words decide what will be where.
    """
    return torch.where(snr < 1, (1 / snr).clamp(max=most), (5 / snr).clamp(max=1))


def train(
    unet: UNet,
    text: TextEncoder,
    tokenizer: Tokenizer,
    latents: tuple[Tensor, Tensor],
    schedule: Schedule,
    seed: int,
    batch: int,
    checkpoint: Path,
    drop: float = 0.1,
    pairs: float | None = None,
    exam: float = 0.0,
    early: float = 0.3,
    early_steps: int = 0,
) -> None:
    """Train both, in place, on the latents (mean, std) of the pictures of `seed`.

    drop: share of captions left empty, for classifier-free guidance (Ho & Salimans 2022).
    pairs: share of pictures with two things (None: as many as there are).
    exam: weight of the text encoder's own questions, which keep it from forgetting who is where.
    early: share of t in 700 .. 999, where it is decided what will be where, in the first
        early_steps; after them t is even.
    """
    device = next(unet.parameters()).device
    sigmas = torch.tensor(STABLE_DIFFUSION.sigmas)
    means, stds = latents
    shown = [description(seed, i) for i in range(len(means))]
    two = np.array([len(d.things) == 2 for d in shown])
    share = two.mean() if pairs is None else pairs
    chance = np.where(two, share / two.sum(), (1 - share) / (~two).sum())
    reader = Reader(text).to(device)

    def loss(step: int) -> tuple[Tensor, str]:
        rng = np.random.default_rng([seed, step, 4])
        torch_rng = torch.Generator().manual_seed(step)
        chosen = rng.choice(len(means), batch, replace=False, p=chance)
        texts = ["" if rng.random() < drop else vary(caption(shown[i], rng), rng) for i in chosen]
        mean, std = means[chosen].float(), stds[chosen].float()
        x0 = mean + std * torch.randn(mean.shape, generator=torch_rng)
        # Stratified t: every batch sees every noise level.
        u = (rng.permutation(batch) + rng.random(batch)) / batch
        late = 1 - early if step < early_steps else 0.7  # u below it: t below 700
        t = (1000 * np.interp(u, (0, late, 1), (0, 0.7, 1))).astype(int)
        sigma = sigmas[t].to(device)
        eps = torch.randn(x0.shape, generator=torch_rng)
        x0, eps = (v.to(device, memory_format=torch.channels_last) for v in (x0, eps))
        ids = encode(tokenizer, texts)
        context = text(ids.to(device)).last
        network = partial(unet, context=context)
        error = squared_error(network, SD_PROCESS, x0, eps, sigma, torch.from_numpy(t).to(device))
        total = (weight(sigma**-2) * error).mean()
        if not exam:
            return total, ""
        told = torch.tensor([bool(each) for each in texts])
        heard = [shown[i] for i, each in zip(chosen, texts, strict=True) if each]
        question, right = reader.exam(ids[told], context[told.to(device)], heard, rng)
        return total + exam * question, f"{total.item():.4f} {right:.3f} right"

    both = nn.ModuleDict({"unet": unet, "text_encoder": text})
    fit(nn.ModuleDict({**both, "reader": reader}) if exam else both, loss, schedule, checkpoint)
