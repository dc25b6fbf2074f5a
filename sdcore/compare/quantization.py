"""What fewer bits do to the pictures: the same seeds drawn with a model and with it quantized."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sdcore import images
from sdcore.checkpoints import open_model
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion

FLIPPED = 20.0  # dB: below this it is another picture, not a noisier one
SAME = 100.0  # dB, of pictures that are equal to the bit


@dataclass(frozen=True)
class Loss:
    """PSNR in dB of each picture to the one that the unquantized model draws from its seed."""

    decibels: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.decibels))

    @property
    def worst(self) -> float:
        return min(self.decibels)

    @property
    def flipped(self) -> int:
        """How many are other pictures. A mean hides them: report it never alone."""
        return sum(each < FLIPPED for each in self.decibels)


def measure(
    model: str | Path,
    quantized: Path,
    whole: bool,
    seeds: int = 8,
    prompt: str = "a red house at sunset",
    steps: int | None = None,
    device: str | None = None,
) -> Loss:
    """Draw `seeds` pictures with each, as the model is drawn with by default.

    whole: whether the quantized file holds all of the model's networks, or its UNet alone.

    Raises InputError as `load` and `prepare` do.
    """
    before = pictures(load(model, device), seeds, prompt, steps)
    names = open_model(model).components if whole else ("unet",)
    parts: dict[str, Any] = dict.fromkeys(names, str(quantized))
    after = pictures(load(model, device, **parts), seeds, prompt, steps)
    return Loss(tuple(map(psnr, after, before)))


def pictures(
    sd: StableDiffusion, seeds: int, prompt: str, steps: int | None = None, **options: Any
) -> list[np.ndarray]:
    """Pictures [H, W, 3] of levels 0 to 255, of the seeds 0, 1, 2 ... options: of `prepare`."""
    drawn = []
    with torch.inference_mode():
        for seed in tqdm(range(seeds), unit="pictures", leave=False, disable=None):
            run = sd.prepare(prompt, seeds=[seed], steps=steps, **options)
            *_, last = run
            drawn.append(np.asarray(run.decode(last.x_next)[0], dtype=np.float64))
    return drawn


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two pictures of 255 levels, in dB, up to `SAME`."""
    return min(SAME, images.psnr(*(torch.from_numpy(each / 127.5 - 1) for each in (a, b))))
