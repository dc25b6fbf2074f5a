"""What an inpainting UNet is told: where to repaint, and what the picture is like elsewhere.

Five more input channels (Rombach et al. 2022, arXiv 2112.10752, section 4.5): the mask, and the
latents of the picture with the masked pixels at grey.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcore.errors import InputError
from sdcore.models import VAE, Gaussian

if TYPE_CHECKING:
    from PIL.Image import Image

CHANNELS = 5  # one of the mask, four of latents
IN_MEMORY = "(in memory)"  # the name of a picture that comes from no file
Picture: TypeAlias = "str | Path | Image"


@dataclass(frozen=True)
class Canvas:
    """A picture and where to repaint it."""

    image: Image  # RGB
    mask: Image  # L, of the same size: 128 and more is repainted
    names: tuple[str, str]  # where both came from

    @property
    def digest(self) -> str:
        """Equal for two canvases of equal pixels, and for no others."""
        digest = hashlib.sha256(repr(self.image.size).encode())
        digest.update(self.image.tobytes() + self.mask.tobytes())
        return digest.hexdigest()[:16]

    def scaled(self, width: int, height: int) -> Canvas:
        """The same of another size, in pixels."""
        from PIL.Image import Resampling

        size = (width, height)
        if size == self.image.size:
            return self
        both = [part.resize(size, Resampling.LANCZOS) for part in (self.image, self.mask)]
        return replace(self, image=both[0], mask=both[1])

    def channels(self, vae: VAE, noise: Tensor) -> Tensor:
        """The further input channels of the UNet, [B,5,h,w], one row for each row of `noise`.

        noise: [B,4,h,w], unit variance: which of the latents that the VAE finds possible.
        """
        from sdcore.images import to_tensor

        repainted = (to_tensor(self.mask)[:, :1] > 0).float()  # [1,1,H,W]
        masked = to_tensor(self.image) * (1 - repainted)
        code = vae.encode(masked.to(noise.device, vae.dtype))
        latents = Gaussian(code.mean.float(), code.std.float()).sample(noise)
        mask = F.interpolate(repainted.to(noise.device), size=noise.shape[-2:])  # nearest
        return torch.cat([mask.expand(len(noise), -1, -1, -1), latents], dim=1)


def open_canvas(image: Picture, mask: Picture) -> Canvas:
    """A picture and its mask, from files or in memory.

    Raises InputError for what is missing or no picture, and for a mask of another size.
    """
    from sdcore.images import open_picture

    picture, over = open_picture(image).convert("RGB"), open_picture(mask).convert("L")
    if picture.size != over.size:
        sizes = [f"{each.width}x{each.height}" for each in (over, picture)]
        raise InputError(f"the mask has {sizes[0]} pixels and the picture {sizes[1]}")
    return Canvas(picture, over, (_name(image), _name(mask)))


def _name(source: Picture) -> str:
    if isinstance(source, str | Path):
        return str(source)
    return getattr(source, "filename", "") or IN_MEMORY
