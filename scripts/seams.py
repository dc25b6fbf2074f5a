"""What the VAE's tiles cost: large pictures decoded whole and in tiles, in levels of 255.

python -m scripts.seams
"""

from __future__ import annotations

import click
import numpy as np
import torch
from torch import Tensor

import sdcore
from scripts.train.pictures import to_tensor
from scripts.train.world import draw, sample_description

SIZE, PICTURES = 512, 4


def seams(whole: Tensor, tiled: Tensor) -> tuple[float, float]:
    """Largest and mean absolute difference of two pictures [B,3,H,W], in levels of 255."""
    difference = (whole.clamp(-1, 1) - tiled.clamp(-1, 1)).abs() * 127.5
    return difference.max().item(), difference.mean().item()


@click.command()
@click.option("--model", default="picturebook", show_default=True)
@torch.inference_mode()
def main(model: str) -> None:
    """Print a table: tile, largest and mean difference, of whole and tiled."""
    vae = sdcore.load(model, device="cpu", dtype="float32").vae
    codes = []
    for seed in range(PICTURES):
        rng = np.random.default_rng(seed)
        picture = draw(sample_description(rng), rng, SIZE)
        codes.append(vae.encode(to_tensor(np.asarray(picture)[None])).mean)
    whole = [vae.decode(code) for code in codes]
    click.echo(f"{PICTURES} pictures of {SIZE} x {SIZE}; differences in levels of 255\n")
    click.echo("| tile (pixels) | largest | mean |\n|---:|---:|---:|")
    for tile in (16, 32, 48):
        vae.tile = tile
        tiled = [vae.decode(code) for code in codes]
        pairs = [seams(a, b) for a, b in zip(whole, tiled, strict=True)]
        largest, mean = max(p[0] for p in pairs), sum(p[1] for p in pairs) / len(pairs)
        click.echo(f"| {tile * vae.config.factor} | {largest:.1f} | {mean:.2f} |")


if __name__ == "__main__":
    main()
