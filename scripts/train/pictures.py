"""The training pictures: rendered once, kept in one file, read as a memory map."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from scripts.train.world import Description, draw, sample_description

SIZE = 128
CHUNK = 500


def description(seed: int, index: int, held_out: bool = False) -> Description:
    """What picture `index` of the set `seed` shows."""
    return sample_description(np.random.default_rng([seed, index, held_out]), held_out)


def picture(seed: int, index: int, held_out: bool = False) -> np.ndarray:
    """Picture `index` of the set `seed`: uint8 [128, 128, 3]."""
    rng = np.random.default_rng([seed, index, held_out, 1])
    return np.asarray(draw(description(seed, index, held_out), rng, SIZE))


def _chunk(seed: int, start: int, stop: int, held_out: bool) -> np.ndarray:
    return np.stack([picture(seed, i, held_out) for i in range(start, stop)])


def render(
    folder: Path, count: int, seed: int, *, workers: int, held_out: bool = False
) -> np.ndarray:
    """A read-only map uint8 [count, 128, 128, 3] of the pictures of `seed`.

    Drawn in chunks by `workers` processes into `folder`; what is there already is not drawn again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"pictures-{seed}-{count}{'-held-out' if held_out else ''}.npy"
    path, partial = folder / name, folder / f"{name}.partial"
    if not path.exists():
        shape = (count, SIZE, SIZE, 3)
        out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        starts = range(0, count, CHUNK)
        with ProcessPoolExecutor(workers) as pool:
            jobs = {
                s: pool.submit(_chunk, seed, s, min(s + CHUNK, count), held_out) for s in starts
            }
            for start in tqdm(starts, desc="rendering", unit="chunk", disable=None):
                block = jobs.pop(start).result()
                out[start : start + len(block)] = block
        out.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")


def to_tensor(pixels: np.ndarray | Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [-1, 1]."""
    x = torch.from_numpy(pixels.copy()) if isinstance(pixels, np.ndarray) else pixels
    return x.permute(0, 3, 1, 2).float() / 127.5 - 1
