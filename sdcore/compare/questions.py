"""What two engines are asked, so that their answers can be laid side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdcore.images import to_pictures

PROMPT = "a red boat on a blue house"
T = (1.0, 500.5, 999.0)  # the timesteps at which UNets are compared

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Ask:
    """What both engines are asked."""

    pipeline: str  # diffusers' class
    cfg: float
    steps: int
    side: int  # pixels, of a square picture
    factor: int = 8  # pixels to a latent
    channels: int = 4  # of the UNet's input
    repaints: bool = False  # whether a picture and a mask are among them
    prompt: str = PROMPT
    seed: int = 3

    @property
    def from_image(self) -> bool:
        """Whether the run is the second half of twice the steps, as SDXL's refiner is used."""
        return "Img2Img" in self.pipeline


def inputs(asked: Ask) -> Tensors:
    """Seeded inputs of the single components: two of each, and a mask."""
    rng = torch.Generator().manual_seed(11)
    side, size = asked.side, asked.side // asked.factor
    return {
        "x": torch.randn(2, asked.channels, size, size, generator=rng),
        "latents": torch.randn(2, 4, size, size, generator=rng),
        "image": torch.rand(2, 3, side, side, generator=rng) * 2 - 1,
        "mask": (torch.rand(1, 1, side, side, generator=rng) > 0.5).float(),
    }


def pictures(asked: Ask) -> dict[str, Any]:
    """The picture and the mask, for a model that repaints one."""
    from PIL import Image

    if not asked.repaints:
        return {}
    given = inputs(asked)
    mask = Image.fromarray((given["mask"][0, 0] * 255).byte().numpy())
    return {"image": to_pictures(given["image"])[0], "mask": mask}


def numbers(count: int) -> list[float]:
    """So many numbers of a picture, as SDXL's UNets are told them."""
    return [1024.0, 768.0, 0.0, 16.0, 6.0, 512.0, 2.5, 8.0][:count]
