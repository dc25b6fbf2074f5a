"""A tiny model to train, and a folder of small pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdcore.loading import load
from sdcore.pipeline import StableDiffusion
from sdcore.training.plan import Plan
from sdcore.training.train import train

WORDS = ("a red house", "a blue boat", "a red boat", "a blue house")


@pytest.fixture(scope="session")
def sd(tiny_path: Path) -> StableDiffusion:
    return load(tiny_path, device="cpu", engine="plain")


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Soft blobs of colour."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four pictures, of two sizes, with captions beside them."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i, words in enumerate(WORDS):
        picture(i, (32, 32) if i < 3 else (64, 32)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(words)
    return folder


@dataclass
class Trained:
    path: Path
    told: list[str]
    place: Path


@pytest.fixture
def run(sd: StableDiffusion, data: Path, tmp_path: Path) -> Callable[..., Trained]:
    """Trains the tiny model: options of the plan -> what came out, and what was told."""

    def run(
        out: str = "out", folder: Path = data, networks: Any = sd, name: str = "new", **options: Any
    ) -> Trained:
        told: list[str] = []
        usual = {"steps": 3, "rank": 2, "lr": 1e-2, "grid": 2, "look_every": 1000,
                 "draw_steps": 1, "prompts": ("a boat",)}  # fmt: skip
        plan = Plan(**{**usual, **options})
        path = train(networks, folder, plan, tmp_path / out, name=name, tell=told.append)
        return Trained(path, told, tmp_path / out)

    return run
