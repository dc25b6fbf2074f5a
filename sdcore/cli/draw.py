"""What `sample` and `rerun` do once everything is decided: draw, write, tell."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdcore.cli.echo import echo, tell
from sdcore.cli.output import Output

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdcore.enduring import Enduring
    from sdcore.networks import Networks
    from sdcore.prepare import Parts
    from sdcore.sampling import Step
    from sdcore.settings import Settings


def draw(
    networks: Networks,
    settings: Sequence[Settings],
    parts: Parts,
    output: Output,
    how: dict[str, Any],
    first: str = "",
) -> None:
    """Draw every picture, write each as soon as it is done, and print its path.

    Warnings, seconds, steps and NFE go to stderr.

    how: the options of the command about output.
    first: a line for stderr that comes before all pictures.
    """
    from sdcore.drawing import draw as drawn
    from sdcore.sheets import contact_sheet

    batch = 1 if how["batch"] is None else how["batch"]
    pictures: list[Image] = []
    done: list[Settings] = []
    film, nfe = _Film(how["steps_sheet"]), 0
    with _Bar(-(-len(settings) // max(1, batch)) * settings[0].steps) as bar:

        def watch(run: Enduring, step: Step) -> None:
            bar.update()
            film.add(run, step)

        smaller = how["fallback"] == "size"
        more: Any = {"batch": batch, "smaller": smaller, "watch": watch, "tell": tell}
        drawing = drawn(networks, settings, parts, **more)
        output.open()
        if first:
            echo(first, err=True)
        begun = time.perf_counter()
        for each in drawing:
            bar.print(str(output.save(each.picture, each.settings)))
            nfe += each.nfe
            done.append(each.settings)
            if how["sheet"]:
                pictures.append(each.picture)
    seconds = time.perf_counter() - begun
    if how["sheet"]:
        captions = [f"{each.prompt}\nseed {each.seed}" for each in done]
        echo(output.save_sheet(contact_sheet(pictures, captions), "sheet"))
    if how["steps_sheet"]:
        echo(output.save_sheet(film.strip(done), "steps"))
    count, steps = len(done), settings[0].steps
    plural = "s" * (count > 1)
    echo(f"{count} picture{plural}, {steps} steps, {nfe // count} NFE each, {seconds:.2f} s", True)


class _Film:
    """What each step thought, where that is wanted: a row for each picture."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.captions: list[str] = []
        self._frames: list[list[Image]] = []  # by step, of the pictures drawn at once
        self._rows: list[list[Image]] = []

    def add(self, run: Enduring, step: Step) -> None:
        if not self.wanted:
            return
        if step.index == run.run.start.index:  # the first, perhaps of a second try
            self.captions, self._frames = [], []
        self.captions.append(f"{step.index + 1}  sigma {step.sigma:.3g}")
        self._frames.append(run.decode(step.prediction.x0))
        if step.index + 1 == step.count:
            self._rows += [list(row) for row in zip(*self._frames, strict=True)]

    def strip(self, settings: Sequence[Settings]) -> Image:
        from sdcore.sheets import film_strip

        titles = [f"{each.prompt}, seed {each.seed}" for each in settings]
        return film_strip(self._rows, self.captions, titles)


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
