"""`sdcore lora`: LoRAs out of models, of another rank, several in one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sdcore.cli.echo import echo, tell

LAYOUT = click.option(
    "--layout", default="kohya", show_default=True, metavar="NAME",
    help="kohya, which every interface reads; diffusers.",
)  # fmt: skip


@click.group()
def lora() -> None:
    """Make a LoRA of two models' difference, resize one, or make one of several.

    Into a model for good: sdcore convert IN OUT --lora FILE.
    """


@lora.command(short_help="What one model has over another, as a LoRA.")
@click.argument("a")
@click.argument("b")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--rank", type=click.IntRange(1), default=16, show_default=True, help="Of linear layers."
)
@click.option(
    "--conv-rank",
    type=click.IntRange(0),
    metavar="INTEGER",
    help="Of 3x3 convolutions; 0 leaves them out.  [default: as --rank]",
)
@LAYOUT
def extract(a: str, b: str, out: Path, rank: int, conv_rank: int | None, layout: str) -> None:
    """Write what model B has over model A as a LoRA, and print how much of it that is.

    The error is what is left out of B - A, as a share of it (Frobenius norms).
    """  # fmt: skip
    from sdcore.adapters.extract import extract as find
    from sdcore.adapters.notes import lora_notes
    from sdcore.checkpoints import open_model
    from sdcore.errors import listed

    target = _target(out, layout)
    first, second = open_model(a), open_model(b)
    new = find(first, second, rank, conv_rank)
    notes = lora_notes(first, rank) | {"ss_training_comment": f"the difference of {b} and {a}"}
    _write(target, new.layers, new.components, layout, notes)
    for name, sizes in new.sizes.items():
        count = sum(place[0] == name for place in new.layers)
        echo(f"{name}: {count} layers, error {sizes.error:.2%}" if count else f"{name}: the same")
    left = listed("other weights differ, and are not in the LoRA", new.left)
    if left:
        tell(left)


@lora.command(short_help="A LoRA at a lower rank.")
@click.argument("source", metavar="IN")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--rank", type=click.IntRange(1), required=True, help="What no layer is above.")
def resize(source: str, out: Path, rank: int) -> None:
    """Write the LoRA IN at a lower rank, and print how far it is from what it was.

    Keys, number formats and notes stay; rank and alpha change so that it acts as strongly.
    """
    from safetensors.torch import save_file

    from sdcore.adapters.resize import resize as shorten
    from sdcore.writing import written_whole

    target = _target(out)
    new = shorten(source, rank)
    with written_whole(target) as path:
        save_file(dict(new.tensors), path, dict(new.metadata))
    echo(target)
    echo(f"{new.layers} layers, error {new.error:.2%}")
    if new.others:
        tell(f"{new.others} layers are no LoRA and stay as they are")


@lora.command(short_help="Several adapters as one LoRA.")
@click.argument("loras", metavar="LORA[:0.8]...", nargs=-1, required=True)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--model",
    default="picturebook",
    show_default=True,
    help="A model that they are for: of its files only shapes are read.",
)
@click.option(
    "--rank",
    type=click.IntRange(1),
    help="To cut every layer to.  [default: the sum of theirs, which loses nothing]",
)
@LAYOUT
def merge(loras: tuple[str, ...], out: Path, model: str, rank: int | None, layout: str) -> None:
    """Write several adapters, each at its strength, as one LoRA, and print its error.

    LoHa, LoKr and differences become a LoRA too, where --rank says of which rank.
    """  # fmt: skip
    from sdcore.adapters import open_lora, unmatched_warning
    from sdcore.adapters.join import join
    from sdcore.adapters.notes import lora_notes
    from sdcore.checkpoints import open_model
    from sdcore.checkpoints.load import outline
    from sdcore.strengths import parse_lora

    target = _target(out, layout)
    checkpoint = open_model(model)
    networks = {n: outline(c) for n, c in checkpoint.components.items() if n != "vae"}
    opened = []
    for spec in loras:
        path, unet, text = parse_lora(spec)
        opened.append(open_lora(path, networks, unet, text))
    for line in filter(None, map(unmatched_warning, opened)):
        tell(line)
    new = join(opened, networks, rank)
    most = max(len(parts["down"]) for parts in new.layers.values())
    notes = lora_notes(checkpoint, most) | {"ss_training_comment": f"merged: {', '.join(loras)}"}
    _write(target, new.layers, networks, layout, notes)
    echo(f"{len(new.layers)} layers, rank {most}, error {new.error:.2%}")


def _target(out: Path, layout: str = "kohya") -> Path:
    """Where to write. Raises InputError before any work is done."""
    from sdcore.adapters.write import LAYOUTS
    from sdcore.errors import InputError, unknown
    from sdcore.paths import path_of
    from sdcore.writing import check_target

    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    target = path_of(out)
    if target.suffix != ".safetensors":
        raise InputError(f"a LoRA is written as .safetensors: name it {target.stem}.safetensors")
    check_target(target)
    return target


def _write(
    target: Path,
    layers: Mapping[Any, Any],
    networks: Mapping[str, Any],
    layout: str,
    notes: Mapping[str, str],
) -> None:
    from sdcore.adapters import write_lora

    write_lora(target, layers, networks, layout, notes)
    echo(target)
