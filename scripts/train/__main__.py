"""Build the bundled model from nothing: `python -m scripts.train --help`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

import sdcore
from scripts.train import denoiser, minutes, words
from scripts.train import vae as vae_stage
from scripts.train.export import export
from scripts.train.fit import Schedule
from scripts.train.pictures import render
from sdcore.models import VAE, TextEncoder

M = TypeVar("M", bound=nn.Module)
SEED = 1  # of the training pictures


@dataclass(frozen=True)
class Recipe:
    """How much of everything."""

    pictures: int  # drawn; the VAE learns from all of them
    encoded: int  # of which the UNet learns
    vae_half: Schedule
    vae_full: Schedule
    vae_sharp: Schedule
    vae_batch: tuple[int, int]  # at half and at full size
    guided: int
    captions: int
    text: Schedule
    unet: Schedule
    refine: Schedule  # with --start only: two things in most pictures
    batch: int
    refine_batch: int
    refine_early: int  # steps of it spent mostly where it is decided what will be where


FULL = Recipe(  # made the model in weights/
    pictures=40_000,
    encoded=32_000,
    vae_half=Schedule(steps=900, lr=1.5e-3, flat=0.7),
    vae_full=Schedule(steps=1700, lr=1e-3, flat=0.4),
    vae_sharp=Schedule(steps=1400, lr=8e-4, warmup=50, flat=0.4),
    vae_batch=(16, 8),
    guided=400,
    captions=20_000,
    text=Schedule(steps=500, lr=1e-3),
    unet=Schedule(steps=5600, lr=1e-3, warmup=150, flat=0.4, ema=0.998),
    refine=Schedule(steps=2000, lr=3e-4, warmup=100, flat=0.3, ema=0.998),
    batch=64,
    refine_batch=32,
    refine_early=950,
)
_FEW = Schedule(steps=2, lr=1e-3, warmup=2)
QUICK = Recipe(
    pictures=16,
    encoded=16,
    vae_half=_FEW,
    vae_full=_FEW,
    vae_sharp=_FEW,
    vae_batch=(2, 2),
    guided=1,
    captions=200,
    text=_FEW,
    unet=replace(_FEW, ema=0.9),
    refine=replace(_FEW, ema=0.9),
    batch=4,
    refine_batch=4,
    refine_early=1,
)


def on_device(model: M, device: torch.device) -> M:
    return model.to(device, memory_format=torch.channels_last)


def train_vae(recipe: Recipe, pictures: np.ndarray, work: Path, device: torch.device) -> VAE:
    """Half size, full size, then with an eye for detail; at last, whitened latents."""
    small, large = recipe.vae_batch
    half = on_device(vae_stage.new_vae(vae_stage.HALF), device)
    first = work / "vae_half.pt"
    vae_stage.train(half, pictures, recipe.vae_half, small, first, guided=recipe.guided)
    full = on_device(vae_stage.grow(half), device)
    vae_stage.train(full, pictures, recipe.vae_full, large, work / "vae_full.pt")
    last = work / "vae_sharp.pt"
    vae_stage.train(full, pictures, recipe.vae_sharp, large, last, sharp=True)
    vae_stage.whiten(full, pictures[:1000])
    return full


def latents(vae: VAE, pictures: np.ndarray, path: Path) -> tuple[Tensor, Tensor]:
    """The latents of all pictures, encoded once and kept in `path`."""
    if not path.exists():
        mean, std = vae_stage.encode_all(vae, pictures)
        partial = path.with_suffix(".partial")
        save_file({"mean": mean, "std": std}, partial)
        partial.rename(path)
    kept = load_file(path)
    return kept["mean"], kept["std"]


def tell(text: TextEncoder, tokenizer: Tokenizer) -> None:
    """Print how far apart the text encoder hears what must not be mixed up."""
    pairs = (
        ("a left house", "a right house"),
        ("a red house", "a blue house"),
        ("a red house above a blue tree", "a blue tree above a red house"),
    )
    for a, b in pairs:
        d = words.distance(text, tokenizer, a, b)
        print(f"text encoder, distance of {a!r} and {b!r}: {d:.3f}", file=sys.stderr)


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("weights/picturebook"),
    show_default=True,
    help="Folder for the finished model.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/picturebook"),
    show_default=True,
    help="Folder for pictures, checkpoints and logs; a stopped run goes on from what is there.",
)
@click.option(
    "--start",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A finished model to go on from: UNet and text encoder, mostly two things a picture.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1),
    help="With --start: go on for so long on a GPU, on fresh pictures; adapters too.",
)
@click.option(
    "--stages",
    multiple=True,
    type=click.Choice(list(minutes.STAGES)),
    help="With --seconds: learn this only; may be repeated.",
)
@click.option("--graph/--no-graph", default=True, help="With --seconds: a step as one CUDA graph.")
@click.option("--device", default=None, help="cpu, cuda ...; chosen by itself when not given.")
@click.option("--quick", is_flag=True, help="Go through everything in a minute, learning nothing.")
def main(
    out: Path,
    work: Path,
    start: Path | None,
    seconds: float | None,
    stages: tuple[str, ...],
    graph: bool,
    device: str | None,
    quick: bool,
) -> None:
    """Render the pictures, train VAE, text encoder and UNet, and write the model to --out.

    Stop it when you like: the same command goes on from the last checkpoint in --work.
    """
    recipe = QUICK if quick else FULL
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
    where = torch.device(chosen)
    if seconds is not None:
        if start is None:
            raise click.UsageError("--seconds goes on from a model: say which with --start")
        amount = minutes.TRIAL if quick else minutes.Amount()
        chosen_stages = [name for name in minutes.STAGES if not stages or name in stages]
        minutes.run(start, out, where, seconds, chosen_stages, replace(amount, graph=graph))
        print(out)
        return
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)  # the networks' first weights

    pictures = render(work, recipe.pictures, SEED, workers=os.cpu_count() or 1)
    if start is None:
        vae = train_vae(recipe, pictures, work, where)
        tokenizer = words.make_tokenizer(SEED, recipe.captions)
        text = words.new_text_encoder(tokenizer).to(where)
        words.pretrain(text, tokenizer, recipe.text, SEED, work / "text.pt")
        unet = on_device(denoiser.new_unet(), where)
    else:
        model = sdcore.load(str(start), device=chosen, dtype="float32")
        vae, unet, text = model.vae, on_device(model.unet, where), model.text_encoder
        for module in (unet, text):
            module.train().requires_grad_(True)
        tokenizer = Tokenizer.from_file(str(start / "tokenizer" / "tokenizer.json"))
    codes = latents(vae, pictures[: recipe.encoded], work / "latents.safetensors")
    learn = partial(denoiser.train, unet, text, tokenizer, codes, seed=SEED)
    tell(text, tokenizer)
    if start is None:
        learn(schedule=recipe.unet, batch=recipe.batch, checkpoint=work / "unet.pt")
    else:
        learn(
            schedule=recipe.refine,
            batch=recipe.refine_batch,
            checkpoint=work / "refined.pt",
            pairs=0.75,
            exam=0.003,
            early=0.65,
            early_steps=recipe.refine_early,
        )
    tell(text, tokenizer)
    export(out, unet, vae, text, tokenizer)
    print(out)


if __name__ == "__main__":
    main()
