"""What `sample` and `rerun` do once everything is decided: draw, write, tell."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sdcore.cli.echo import echo, tell
from sdcore.cli.output import Output

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdcore.run import Run

    Prepare = Callable[[Any, dict[str, int]], Run]

T = TypeVar("T")


def draw(run: Run, batch: int | None, output: Output, sheet: bool, steps_sheet: bool) -> None:
    """Draw every picture of `run`, `batch` at a time, and write each as soon as it is done.

    Paths go to stdout; warnings, seconds, steps and NFE to stderr.
    """
    from sdcore.enduring import Enduring
    from sdcore.free_memory import give_back
    from sdcore.sheets import contact_sheet

    for line in run.warnings:
        tell(line)
    runs = run.split(1 if batch is None else batch)
    output.open()
    pictures: list[Image] = []
    strips: list[list[Image]] = []
    begun, nfe, drawn, networks = time.perf_counter(), 0, 0, run.networks
    with run.without_gradients(), _Bar(len(runs) * len(run)) as bar:
        for part in runs:
            frames: list[list[Image]] = []
            for step in (lean := Enduring(part.on(networks), tell)):
                nfe += step.nfe * len(part.settings)
                bar.update()
                if steps_sheet:
                    frames.append(lean.decode(step.prediction.x0))
            pictures_now = lean.decode(step.x_next * run.end_scale)
            for picture, settings in zip(pictures_now, lean.run.settings, strict=True):
                bar.print(str(output.save(picture, settings)))
                drawn += 1
                if sheet:
                    pictures.append(picture)
            del pictures_now
            give_back()
            strips += [list(strip) for strip in zip(*frames, strict=True)]
            networks = lean.run.networks  # what was too much once will be again
    seconds = time.perf_counter() - begun
    if sheet:
        captions = _captions(run)
        echo(output.save_sheet(contact_sheet(pictures, captions), "sheet"))
    if steps_sheet:
        echo(output.save_sheet(_film(run, strips), "steps"))
    echo(
        f"{drawn} picture{'s' * (drawn > 1)}, {len(run)} steps, "
        f"{nfe // drawn} NFE each, {seconds:.2f} s",
        err=True,
    )


def draw_what_fits(run: Run, prepare: Prepare | None, *how: Any) -> None:
    """`draw`, and where memory runs out, again with sides of three quarters.

    prepare: (model, width and height) -> the same run of that size; None: that is not allowed.
    how: as `draw` takes it.
    """
    from sdcore.enduring import OutOfMemory

    asked = (run.settings[0].width, run.settings[0].height)
    while True:
        try:
            return draw(run, *how)
        except OutOfMemory as error:
            if error.run is None:
                raise
            networks, last = error.run.networks, error.run.settings[0]
            step = networks.vae.config.factor
            width, height = (side * 3 // 4 // step * step for side in (last.width, last.height))
            if prepare is None or min(width, height) < 8 * step:
                raise
        tell(f"out of memory; drawing {width}x{height} instead")
        run = prepare(networks, {"width": width, "height": height})
        run = replace(run, settings=tuple(replace(s, asked=asked) for s in run.settings))


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
        echo(line)
