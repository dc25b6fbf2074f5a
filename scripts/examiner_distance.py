"""The Frechet distance of two folders of pictures of the bundled world, by its own examiner.

    python -m scripts.examiner_distance pictures/ others/

The features are the means of the examiner's last layer (scripts/train/examiner.py), which has seen
rendered pictures of this world only. The number is no FID and compares with none: it is relative,
for two ways of drawing with the bundled model. The examiner is trained at first use, some minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import torch
from torch import Tensor

from scripts.adherence import WORK
from scripts.train.examiner import SIZE, Examiner, load_examiner
from sdcore.errors import InputError
from sdcore.experiments.metrics import frechet, pictures_in
from sdcore.images import open_picture, to_tensor


@torch.inference_mode()
def features(examiner: Examiner, paths: Sequence[Path], batch: int = 32) -> Tensor:
    """[N, 128]: what the examiner sees in each picture."""
    rows = []
    for i in range(0, len(paths), batch):
        pictures = [open_picture(each).convert("RGB") for each in paths[i : i + batch]]
        x = torch.cat([to_tensor(each.resize((SIZE, SIZE))) for each in pictures])
        rows.append(examiner.body(x).mean(dim=(2, 3)).float())
    return torch.cat(rows)


def distance(examiner: Examiner, a: Sequence[Path], b: Sequence[Path]) -> float:
    """Between two sets of at least two pictures each. Raises InputError."""
    if min(len(a), len(b)) < 2:
        raise InputError("a distance of sets needs two pictures of each at least")
    return frechet(features(examiner, a), features(examiner, b))


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--work", type=click.Path(path_type=Path), default=WORK, show_default=True)
def main(a: str, b: str, work: Path) -> None:
    """Print the distance of the pictures in folders A and B."""
    try:
        sets = [list(pictures_in(each).values()) for each in (a, b)]
        found = distance(load_examiner(work), *sets)
    except InputError as error:
        raise click.ClickException(str(error)) from None
    counts = " and ".join(str(len(each)) for each in sets)
    click.echo(f"Frechet distance by the world's examiner: {found:.4f} ({counts} pictures)")


if __name__ == "__main__":
    main()
