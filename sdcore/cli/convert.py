"""`sdcore convert`: a checkpoint from either layout to either."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdcore.cli.echo import echo, tell

if TYPE_CHECKING:
    from sdcore.checkpoints import Checkpoint


@click.command()
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--dtype", metavar="NAME", help="float32, bfloat16, float16.  [default: as stored]")
@click.option("--variant", metavar="NAME", help="Of a folder's weights: fp16, non_ema ...")
@click.option("--ema", is_flag=True, help="A single file's averaged weights.")
@click.option("--vae", metavar="FILE", help="A VAE from elsewhere, for good.")
@click.option("--unet", metavar="FILE", help="A UNet from elsewhere.")
@click.option("--text-encoder", metavar="FILE", help="A text encoder from elsewhere.")
@click.option("--text-encoder-2", metavar="FILE", help="SDXL's second.")
@click.option("--lora", metavar="FILE[:0.8]", multiple=True, help="Merge it in; as for sample.")
def convert(
    source: str,
    target: Path,
    dtype: str | None,
    variant: str | None,
    ema: bool,
    lora: tuple[str, ...],
    **parts: str | None,
) -> None:
    """Write the model SOURCE as TARGET, and print it.

    A TARGET that ends in .safetensors is one file in the LDM layout, any other a folder in the
    diffusers layout. Weights stay what they are to the bit, unless --dtype says otherwise
    or a --lora changes them: sums are in float32, and rounded to what they are stored in.
    """
    import torch

    from sdcore.adapters import merged, unmatched_warning
    from sdcore.checkpoints import open_model
    from sdcore.checkpoints.convert import convert as write
    from sdcore.devices import choose_dtype
    from sdcore.paths import path_of
    from sdcore.writing import check_target

    wanted = None if dtype is None else choose_dtype(dtype, torch.device("cpu"))
    target = path_of(target)
    check_target(target)
    checkpoint = open_model(source, parts, variant=variant, ema=ema)
    states, loras = merged(checkpoint, lora, wanted) if lora else ({}, ())
    for note in (*checkpoint.notes, *filter(None, map(unmatched_warning, loras))):
        tell(note)
    for adapter in loras:
        if adapter.words:
            tell(f"{adapter.name}: its learned words are not written: {', '.join(adapter.words)}")
    write(checkpoint, target, wanted, states)
    tell_vocabulary(checkpoint, target)
    echo(target)


def tell_vocabulary(checkpoint: "Checkpoint", target: Path) -> None:
    """Where `target` is a single file, which holds no vocabulary, and its own is not CLIP's."""
    from sdcore.checkpoints.vocabulary import added_words

    beside = target.parent / "tokenizer"
    if not target.is_file() or not checkpoint.tokenizers or beside.is_dir():
        return
    folder, _, words = checkpoint.vocabulary()
    if not replace(checkpoint, added_words={**added_words(folder), **words}).speaks_clip:
        tell(f"no single file holds a vocabulary, and this one is not CLIP's: to draw with it, "
             f"copy {folder} to {beside}")  # fmt: skip
