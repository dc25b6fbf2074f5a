"""A sheet of what the model draws, as it comes: prompt i with seed i, nothing picked.

    python -m scripts.contact_sheet --out sheet.png

It goes into the model's card.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

import sdcore
from scripts.adherence import SEED, drawn
from scripts.train.world import Description, canonical_caption, sample_description
from sdcore.images import save_png
from sdcore.sheets import contact_sheet

ROWS, COLUMNS = 6, 8


def shown() -> list[Description]:
    """48 descriptions; every other row begins with a pair that was held out of training."""
    return [
        sample_description(np.random.default_rng([SEED, i, 2]), _is_new(i))
        for i in range(ROWS * COLUMNS)
    ]


def _is_new(index: int) -> bool:
    return index // COLUMNS % 2 == 1


def captions(descriptions: list[Description]) -> list[str]:
    return [
        canonical_caption(each) + ("\n(new pair)" if _is_new(i) else "")
        for i, each in enumerate(descriptions)
    ]


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--model", default="picturebook", show_default=True, help="Bundled name or folder.")
@click.option("--device", help="cpu, cuda ...; chosen by itself when not given.")
def main(out: Path, model: str, device: str | None) -> None:
    """Draw 48 prompts with the default settings, seeds 0 to 47, and write one labelled sheet.

    "new pair": this object in this colour was held out of training.
    """
    try:
        sd = sdcore.load(model, device)
        asked = shown()
        strokes = tqdm(drawn(sd, asked), total=len(asked), disable=None, leave=False)
        save_png(contact_sheet(list(strokes), captions(asked), COLUMNS), out)
    except sdcore.InputError as error:
        raise click.ClickException(str(error)) from None
    click.echo(out)


if __name__ == "__main__":
    main()
