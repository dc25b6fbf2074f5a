"""What `sample` and `rerun` do once everything is decided: draw, write, tell."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sdcore.cli.echo import echo, tell
from sdcore.cli.output import Output
from sdcore.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from sdcore.run import Run
    from sdcore.sampling import Step

    Prepare = Callable[[Any, dict[str, int]], Run]

T = TypeVar("T")


def draw(run: Run, batch: int | None, output: Output, sheet: bool, steps_sheet: bool) -> None:
    """Draw every picture of `run`, `batch` at a time, and write each as soon as it is done.

    Paths go to stdout; warnings, seconds, steps and NFE to stderr.
    """
    from sdcore.sheets import contact_sheet

    for line in run.warnings:
        tell(line)
    runs = run.split(1 if batch is None else batch)
    output.open()
    pictures: list[Image] = []
    strips: list[list[Image]] = []
    begun, nfe, networks = time.perf_counter(), 0, run.networks
    with run.without_gradients(), _Bar(len(runs) * len(run)) as bar:
        for part in runs:
            frames: list[list[Image]] = []
            for step in (lean := Enduring(part.on(networks))):
                nfe += step.nfe * len(part.settings)
                bar.update()
                if steps_sheet:
                    frames.append(lean.decode(step.prediction.x0))
            pictures_now = lean.decode(step.x_next * run.end_scale)
            for picture, settings in zip(pictures_now, lean.run.settings, strict=True):
                bar.print(str(output.save(picture, settings)))
                pictures.append(picture)
            strips += [list(strip) for strip in zip(*frames, strict=True)]
            networks = lean.run.networks  # what was too much once will be again
    seconds = time.perf_counter() - begun
    if sheet:
        captions = _captions(run)
        echo(output.save_sheet(contact_sheet(pictures, captions), "sheet"))
    if steps_sheet:
        echo(output.save_sheet(_film(run, strips), "steps"))
    count = len(pictures)
    echo(
        f"{count} picture{'s' * (count > 1)}, {len(run)} steps, "
        f"{nfe // count} NFE each, {seconds:.2f} s",
        err=True,
    )


class OutOfMemory(InputError):
    """Even the leanest mode is too much for `run`."""

    def __init__(self, run: Run) -> None:
        size = f"{run.settings[0].width}x{run.settings[0].height}"
        super().__init__(
            f"out of memory on {run.networks.device} for {size}, even with --memory low: ask for a "
            "smaller picture (--width, --height), or allow one (--fallback size)"
        )
        self.run = run


def draw_what_fits(run: Run, prepare: Prepare | None, *how: Any) -> None:
    """`draw`, and where memory runs out, again with sides of three quarters.

    prepare: (model, width and height) -> the same run of that size; None: that is not allowed.
    how: as `draw` takes it.
    """
    asked = (run.settings[0].width, run.settings[0].height)
    while True:
        try:
            return draw(run, *how)
        except OutOfMemory as error:
            networks, last = error.run.networks, error.run.settings[0]
            step = networks.vae.config.factor
            width, height = (side * 3 // 4 // step * step for side in (last.width, last.height))
            if prepare is None or min(width, height) < 8 * step:
                raise
        tell(f"out of memory; drawing {width}x{height} instead")
        run = prepare(networks, {"width": width, "height": height})
        run = replace(run, settings=tuple(replace(s, asked=asked) for s in run.settings))


class Enduring:
    """A run that goes on in a leaner mode of memory, telling so, where there is not enough of it.

    run: as it is now. Raises InputError where even the leanest mode is too much.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def __iter__(self) -> Iterator[Step]:
        start, last = None, False
        while not last:
            steps = self.run.steps(start)
            while (step := self._tried(lambda steps=steps: next(steps))) is not None:
                yield step
                start, last = step.state, step.index + 1 == step.count
                if last:
                    break

    def decode(self, x: Tensor) -> list[Image]:
        """The pictures of unit-variance latents."""
        while (pictures := self._tried(lambda: self.run.networks.decode(x))) is None:
            pass
        return pictures

    def _tried(self, work: Callable[[], T]) -> T | None:
        """What `work` returns; None where memory ran out, and `run` is leaner now."""
        from sdcore.memory import is_out_of_memory

        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the except clause, whose traceback holds on to the tensors.
        run = self.run.leaner()
        if run is None:
            raise OutOfMemory(self.run)
        self.run = run
        mode = run.networks.memory
        tell(f"out of memory; going on with --memory {mode}")
        return None


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
