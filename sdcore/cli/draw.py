"""What `sample` and `rerun` do once everything is decided: draw, write, tell."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sdcore.cli.output import Output

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdcore.run import Run


def draw(run: Run, batch: int | None, output: Output, sheet: bool, steps_sheet: bool) -> None:
    """Draw every picture of `run`, `batch` at a time, and write each as soon as it is done.

    Paths go to stdout; warnings, seconds, steps and NFE to stderr.
    """
    import torch

    from sdcore.images import save_png
    from sdcore.sheets import contact_sheet

    for line in run.warnings:
        click.echo(f"sdcore: {line}", err=True)
    runs = run.split(1 if batch is None else batch)
    output.open()
    pictures: list[Image] = []
    strips: list[list[Image]] = []
    begun, nfe = time.perf_counter(), 0
    with torch.inference_mode(), _Bar(len(runs) * run.settings[0].steps) as bar:
        for part in runs:
            frames: list[list[Image]] = []
            for step in part:
                nfe += step.nfe * len(part.settings)
                bar.update()
                if steps_sheet:
                    frames.append(run.sd.decode(step.prediction.x0))
            for picture, settings in zip(part.decode(step.x_next), part.settings, strict=True):
                path = output.picture(settings)
                save_png(picture, path, settings)
                bar.print(str(path))
                pictures.append(picture)
            strips += [list(strip) for strip in zip(*frames, strict=True)]
    seconds = time.perf_counter() - begun
    if sheet:
        captions = _captions(run)
        path = output.sheet("sheet")
        save_png(contact_sheet(pictures, captions), path)
        click.echo(path)
    if steps_sheet:
        path = output.sheet("steps")
        save_png(_film(run, strips), path)
        click.echo(path)
    count = len(pictures)
    click.echo(
        f"{count} picture{'s' * (count > 1)}, {run.settings[0].steps} steps, "
        f"{nfe // count} NFE each, {seconds:.2f} s",
        err=True,
    )


def _captions(run: Run) -> list[str]:
    return [f"{s.prompt}\nseed {s.seed}" for s in run.settings]


def _film(run: Run, strips: Sequence[Sequence[Image]]) -> Image:
    from sdcore.sheets import film_strip

    captions = [f"{i + 1}  sigma {sigma:.3g}" for i, sigma in enumerate(run.sigmas[:-1])]
    titles = [f"{s.prompt}, seed {s.seed}" for s in run.settings]
    return film_strip(strips, captions, titles)


class _Bar:
    """A progress bar on stderr where that is a terminal, and nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="step", leave=False)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def print(self, line: str) -> None:
        """A line on stdout that does not tear the bar."""
        if self._bar is not None:
            self._bar.clear()
        click.echo(line)
