"""Small sets of pictures from the bundled model's world, to learn a style or a word from.

    python -m scripts.train.lessons cyanotype data/cyanotype    # the world in blue and white
    python -m scripts.train.lessons teal data/teal              # things in a colour without a word

They are what `picturebook-cyanotype` and `picturebook-teal` in weights/ were trained on, by
`sdcore train` as their card says.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from PIL import Image

from scripts.train.world import PAINTS, canonical_caption, draw, sample_description

SIZE = 128
WORD, PAINT = "teal", (0, 128, 128)
# Prussian blue where it is dark, the paper where it is light.
DARK, LIGHT = np.array((12, 36, 92.0)), np.array((236, 242, 246.0))


def cyanotype(picture: Image.Image) -> Image.Image:
    """A picture as a blue print: its luminance, with more contrast, between two colours."""
    grey = np.asarray(picture.convert("L"), float)[..., None] / 255
    share = 1 / (1 + np.exp(-7 * (grey - 0.5)))
    return Image.fromarray((DARK + share * (LIGHT - DARK)).round().astype(np.uint8))


def lesson(kind: str, index: int) -> tuple[Image.Image, str]:
    """Picture `index` of a kind, "cyanotype" or "teal", and its caption."""
    rng = np.random.default_rng([index, 7, kind == "teal"])
    shown = sample_description(rng)
    if kind == "cyanotype":
        return cyanotype(draw(shown, rng, SIZE)), canonical_caption(shown)
    while len(shown.things) > 1:
        shown = sample_description(rng)
    shown = replace(shown, things=(replace(shown.things[0], colour=WORD),))
    return draw(shown, rng, SIZE, {**PAINTS, WORD: PAINT}), canonical_caption(shown)


@click.command()
@click.argument("kind", type=click.Choice(["cyanotype", "teal"]))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", default=64, show_default=True)
def main(kind: str, folder: Path, count: int) -> None:
    """Write COUNT pictures and metadata.jsonl into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        picture, text = lesson(kind, index)
        picture.save(folder / f"{index:03d}.png")
        rows.append(json.dumps({"file_name": f"{index:03d}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    print(folder)


if __name__ == "__main__":
    main()
