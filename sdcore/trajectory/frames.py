"""Latents of many steps as small pictures, without the VAE."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from sdcore.images import to_pictures
from sdcore.latent_colours import LatentColours

SIDE = 128  # pixels at least of a frame; a latent pixel becomes 8 at most


def frames_of(steps: Tensor, colours: LatentColours) -> list[list[Image.Image]]:
    """[N,B,C,h,w] to N pictures for each of B."""
    by_step = [enlarged(colours(latents.float())) for latents in steps]
    return [list(each) for each in zip(*by_step, strict=True)]


def enlarged(images: Tensor) -> list[Image.Image]:
    """[B,3,h,w] in [-1, 1] to pictures that can be looked at."""
    factor = max(1, min(8, -(-SIDE // images.shape[-1])))
    size = (images.shape[-1] * factor, images.shape[-2] * factor)
    return [each.resize(size, Image.Resampling.BICUBIC) for each in to_pictures(images)]
