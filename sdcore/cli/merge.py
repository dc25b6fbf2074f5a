"""`sdcore merge`: single files mixed."""

from pathlib import Path

import click

from sdcore.cli.echo import echo, tell
from sdcore.errors import InputError


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.argument("c", type=click.Path(path_type=Path), required=False)
@click.option("--alpha", type=float, default=0.5, show_default=True, help="0 is A.")
@click.option("--block", metavar="NAME=ALPHA", multiple=True, help="E.g. in4=0.2, mid=0; often.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A .safetensors file.")
def merge(
    a: Path, b: Path, c: Path | None, alpha: float, block: tuple[str, ...], out: Path
) -> None:
    """Write A + ALPHA (B - A), or with C: A + ALPHA (B - C), and print its path.

    All are single files of one layout; a folder becomes one by `sdcore convert`. Blocks: in0 to
    in11, mid, out0 to out11, or all of in, out, unet, text, vae. The recipe goes into the file.
    """
    from sdcore.checkpoints.merge import merge as write

    blocks = {}
    for item in block:
        name, _, number = item.partition("=")
        try:
            blocks[name] = float(number)
        except ValueError:
            raise InputError(f"--block {item}: write it like in4=0.2") from None
    for line in write(a, b, c, out, alpha, blocks):
        tell(line)
    echo(out)
