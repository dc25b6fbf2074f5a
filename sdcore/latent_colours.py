"""What latents look like without the VAE: one linear map from a latent pixel to a colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

RIDGE = 1e-3  # of the fit: a few pixels of latents do not decide a map alone


@dataclass(frozen=True)
class LatentColours:
    """colour = latent @ weights + bias, with colours in [-1, 1]; one eighth of the picture's size.

    weights: [C, 3]; bias: [3].
    """

    weights: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, latents: Tensor, images: Tensor) -> Self:
        """The map that leads from latents [B,C,h,w] to their images [B,3,H,W] with least squares.

        images: in [-1, 1]; averaged over the pixels that one latent pixel stands for.
        """
        small = F.interpolate(images.float(), latents.shape[-2:], mode="area")
        points, colours = (_pixels(each).double().cpu() for each in (latents, small))
        mean, of_colours = points.mean(0), colours.mean(0)
        points = points - mean
        square = points.T @ points / len(points)
        square += RIDGE * square.diagonal().mean().clamp_min(1e-12) * torch.eye(len(square))
        weights = torch.linalg.solve(square, points.T @ (colours - of_colours) / len(points))
        return cls(weights.float(), (of_colours - mean @ weights).float())

    @classmethod
    def false(cls, latents: Tensor) -> Self:
        """Where no picture is known: the three directions in which latents [B,C,h,w] vary most."""
        points = _pixels(latents).double().cpu()
        mean = points.mean(0)
        _, spread, directions = torch.linalg.svd(points - mean, full_matrices=False)
        weights = F.pad(directions.T[:, :3], (0, max(0, 3 - directions.shape[0])))
        weights = weights / (2 * spread[0].clamp_min(1e-12) / len(points) ** 0.5)
        return cls(weights.float(), -(mean @ weights).float())

    def __call__(self, latents: Tensor) -> Tensor:
        """Latents [B,C,h,w] to images [B,3,h,w] in [-1, 1]."""
        colours = _pixels(latents).float() @ self.weights.to(latents.device)
        colours = (colours + self.bias.to(latents.device)).clamp(-1, 1)
        b, _, h, w = latents.shape
        return colours.reshape(b, h, w, 3).permute(0, 3, 1, 2)


def _pixels(images: Tensor) -> Tensor:
    """[B,C,h,w] -> [B h w, C]."""
    return images.detach().permute(0, 2, 3, 1).reshape(-1, images.shape[1])
