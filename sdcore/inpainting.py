"""A picture to start from, and what is kept of it.

An inpainting UNet is told of it in five more input channels (Rombach et al. 2022, arXiv 2112.10752,
section 4.5): the mask, and the latents of the picture with the masked pixels at grey. For any other
UNet what is kept is laid over every question and every answer (`Kept`): a wrapper around the model,
so that every solver can do it (Lugmayr et al. 2022, arXiv 2201.09865, eq. 8, without resampling).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcore.errors import InputError
from sdcore.models import VAE, DiagonalGaussian
from sdcore.sampling import Denoise, Prediction
from sdcore.written_forms import IN_MEMORY

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 8192  # pixels; beyond it a size is a slip of the finger
Picture: TypeAlias = "str | Path | Image"


@dataclass(frozen=True)
class Canvas:
    """A picture, and where to repaint it."""

    image: Image  # RGB
    mask: Image | None  # L, of the same size: white is repainted; None: all of it
    names: tuple[str, str | None]  # where both came from
    fit: str = "stretch"  # how they are brought to another size: `sdcore.fitting`
    blur: float = 0.0  # of the mask's edges: a Gaussian's standard deviation, in pixels
    marks: tuple[str, ...] = ()  # what the picture says of its origin: `Settings.image_marks`

    @property
    def digest(self) -> str:
        """Equal for two canvases of equal pixels, and for no others."""
        digest = hashlib.sha256(repr(self.image.size).encode())
        digest.update(self.image.tobytes())
        digest.update(b"" if self.mask is None else self.mask.tobytes())
        return digest.hexdigest()[:16]

    def scaled(self, width: int, height: int) -> Canvas:
        """The same of another size, in pixels, its mask blurred."""
        from sdcore.fitting import blurred, fitted

        size = (width, height)
        if size == self.image.size and not self.blur:
            return self
        image = fitted(self.image, size, self.fit)
        mask = None if self.mask is None else fitted(self.mask, size, self.fit)
        if mask is not None and self.blur:
            mask = blurred(mask, self.blur)
        return replace(self, image=image, mask=mask, blur=0.0)

    def latents(self, vae: VAE, noise: Tensor) -> Tensor:
        """The picture's latents [B,4,h,w], one row for each row of `noise`.

        noise: [B,4,h,w], unit variance: which of those that the VAE finds possible; 0 is the
            likeliest.
        """
        from sdcore.images import to_tensor

        return _encoded(vae, to_tensor(self.image), noise.device).sample(noise)

    def channels(self, vae: VAE, noise: Tensor) -> Tensor:
        """The further input channels of the UNet, [B,5,h,w], one row for each row of `noise`.

        noise: [B,4,h,w], unit variance: which of the latents that the VAE finds possible.
        """
        from sdcore.images import to_tensor

        if self.mask is None:
            raise InputError("an inpainting model needs a mask")
        repainted = (to_tensor(self.mask)[:, :1] > 0).float()  # [1,1,H,W]
        masked = to_tensor(self.image) * (1 - repainted)
        latents = _encoded(vae, masked, noise.device).sample(noise)
        mask = F.interpolate(repainted.to(noise.device), size=noise.shape[-2:])  # nearest
        return torch.cat([mask.expand(len(noise), -1, -1, -1), latents], dim=1)

    def share(self, size: Sequence[int], device: torch.device) -> Tensor:
        """How much of each latent is repainted, [1,1,h,w] in 0 .. 1. size: (h, w).

        A mask of black and white alone is taken at the first pixel of each latent, as in diffusers;
        one with greys, soft edges, is averaged over a latent's pixels.
        """
        from sdcore.images import to_tensor

        if self.mask is None:
            return torch.ones(1, 1, *size, device=device)
        grey = to_tensor(self.mask)[:, :1] / 2 + 0.5
        hard = bool(((grey == 0) | (grey == 1)).all())
        return F.interpolate(grey, size=tuple(size), mode="nearest" if hard else "area").to(device)


def _encoded(vae: VAE, image: Tensor, device: torch.device) -> DiagonalGaussian:
    """image: [1,3,H,W] in -1 .. 1. In float32 whatever the VAE computes in."""
    code = vae.encode(image.to(device, vae.dtype))
    return DiagonalGaussian(code.mean.float(), code.std.float())


@dataclass(frozen=True)
class Kept:
    """What is kept of a picture, around any model.

    The model sees the picture with noise where nothing is repainted, and is taken to answer with
    the picture there. So x goes on a straight line to it, which every solver follows.
    """

    share: Tensor  # [1,1,h,w] how much is repainted
    latents: Tensor  # [B,4,h,w] of the picture
    noise: Tensor  # [B,4,h,w] of unit variance, the same at every level
    # At this sigma x is noise alone and is seen as it is, as in diffusers; None: never.
    pure: float | None = None
    unpaired: bool = False  # whether x0 and eps of the answers are not those of one x (CFG++)

    def __call__(self, denoise: Denoise) -> Denoise:
        """The model with what is kept laid over every question and every answer."""

        def keeping(x: Tensor, sigma: float) -> Prediction:
            there = self.latents + sigma * self.noise
            seen = x if sigma == self.pure else torch.lerp(there, x, self.share)
            answer = denoise(seen, sigma)
            x0 = torch.lerp(self.latents, answer.x0, self.share)
            # x = x0 + sigma * eps, also where x is not what the model saw; but for what the
            # guidance keeps apart, of which there is as much as is repainted.
            apart = 0.0
            if self.unpaired:
                apart = self.share * (seen - answer.x0 - sigma * answer.eps)
            eps = (x - x0 - apart) / sigma if sigma else answer.eps
            eps = torch.where(self.share == 1, answer.eps, eps)
            return Prediction(x0, eps, answer.branches, answer.origin)

        return keeping

    def over(self, latents: Tensor) -> Tensor:
        """The latents [B,4,h,w] of a picture that is done, where the picture was kept."""
        return torch.lerp(self.latents, latents, self.share)

    def of(self, part: slice) -> Kept:
        """The same for some of the pictures."""
        return replace(self, latents=self.latents[part], noise=self.noise[part])


def with_pixels(pictures: Sequence[Image], canvas: Canvas) -> list[Image]:
    """Pictures with the pixels of the canvas where its mask is black. All of one size."""
    from PIL import Image as pillow

    if canvas.mask is None:
        return list(pictures)
    return [pillow.composite(picture, canvas.image, canvas.mask) for picture in pictures]


def open_canvas(
    image: Picture,
    mask: Picture | None = None,
    fit: str = "stretch",
    blur: float = 0.0,
    extend: str | None = None,
) -> Canvas:
    """A picture and its mask, from files or in memory.

    extend: pixels to paint beside the picture, like "left=64,top=32": its edge repeated, and white
        in the mask.

    Raises InputError for what is missing or no picture, for a mask of another size, and where it
    would be extended beyond MAX_SIDE.
    """
    from sdcore.fitting import check_fit, extended, extended_size, read_sides, to_rgb
    from sdcore.images import marks_of, open_picture

    if not 0 <= blur <= 1000:
        raise InputError(f"mask_blur {blur:g} is out of range: 0 to 1000 pixels")
    given = open_picture(image)
    picture = to_rgb(given)
    over = None if mask is None else to_rgb(open_picture(mask), "black").convert("L")
    if over is not None and picture.size != over.size:
        sizes = [f"{each.width}x{each.height}" for each in (over, picture)]
        raise InputError(f"the mask has {sizes[0]} pixels and the picture {sizes[1]}")
    if extend is not None:
        from PIL import Image as pillow
        from PIL import ImageOps

        sides = read_sides(extend)
        width, height = extended_size(picture.size, sides)
        if max(width, height) > MAX_SIDE:
            raise InputError(
                f"extend {extend} makes a picture of {width}x{height}: {MAX_SIDE} pixels a side at "
                "most"
            )
        inner, picture = picture.size, extended(picture, sides)
        old = pillow.new("L", inner, 0) if over is None else over
        over = ImageOps.expand(old, sides, fill=255)
    names = (_name(image), None if mask is None else _name(mask))
    return Canvas(picture, over, names, check_fit(fit), blur, marks_of(given))


def _name(source: Picture) -> str:
    if isinstance(source, str | Path):
        return str(source)
    return getattr(source, "filename", "") or IN_MEMORY
