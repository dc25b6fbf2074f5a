"""`sdcore convert`: a checkpoint from either layout to either."""

from pathlib import Path

import click

from sdcore.cli.echo import echo, tell


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
    echo(target)
