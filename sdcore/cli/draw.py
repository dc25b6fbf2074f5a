"""What `sample` and `rerun` do once everything is decided: draw, write, tell."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import mul
from typing import TYPE_CHECKING, Any

from sdcore.a1111 import bare
from sdcore.cli.echo import echo, tell
from sdcore.cli.output import Output
from sdcore.cli.records import Records
from sdcore.cli.state import Unfinished
from sdcore.garbage import put_aside

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdcore.cli.jobs import Batch
    from sdcore.drawing import Drawn
    from sdcore.enduring import Enduring
    from sdcore.networks import Networks
    from sdcore.sampling import Step
    from sdcore.settings import Settings
    from sdcore.sheets import Section


@dataclass(frozen=True)
class Done:
    """A picture that was drawn, kept for a sheet."""

    picture: Image | None  # where a sheet or a film is wanted
    settings: Settings
    steps: int  # that were run
    nfe: int
    labels: Mapping[str, Any]


def draw(
    groups: Iterator[tuple[Networks, list[Batch]]],
    output: Output,
    how: Mapping[str, Any],
    first: str = "",
) -> None:
    """Draw every picture, write each as soon as it is done, and print its path.

    Warnings, seconds, steps and NFE go to stderr.

    groups: as `jobs.ready` gives them. how: the options of the command about output.
    first: a line for stderr that comes before all pictures.
    """
    from sdcore.drawing import draw as drawn
    from sdcore.filters import open_filters

    size = 1 if how["batch"] is None else how["batch"]
    unfinished, records = Unfinished(how["state"], how["stop_after"]), Records(how)
    done: list[Done] = []
    film, told = _Film(how["steps_sheet"]), _once(tell)
    begun = None
    with _taken_back(output), _Bar() as bar, unfinished, records:

        def watch(run: Enduring, step: Step) -> None:
            bar.update()
            film.add(run, step)
            records.keep(run.run, step)
            unfinished.keep(run.run, step)

        more: Any = {"batch": size, "smaller": how["fallback"] == "size", "watch": watch}
        more["filters"] = open_filters(how["filter"], how["safety"], how["safety_action"])
        for networks, batches in groups:
            factor = networks.vae.config.factor
            steps = [_steps(batch, factor) for batch in batches]
            bar.grow(sum(map(mul, steps, (_rounds(batch, size) for batch in batches))))
            for batch, count in zip(batches, steps, strict=True):
                output.check(batch.settings)
                if how["state"] is not None:  # one state, one run
                    more["batch"] = len(batch.settings)
                more |= {"start": batch.start, "noise": batch.noise, "sigmas": batch.sigmas}
                drawing = drawn(networks, batch.settings, batch.parts, tell=told, **more)
                if begun is None:
                    put_aside()
                    output.open()
                    if first:
                        echo(first, err=True)
                    begun = time.perf_counter()
                for each in drawing:
                    networks = replace(networks, memory=each.settings.memory)  # leaner, perhaps
                    records.shown(each.shown)
                    if each.picture is not None:
                        bar.print(str(output.save(each.picture, each.settings, batch.labels)))
                    if each.flags:
                        film.leave_out(each.settings)
                        tell(_flagged(each))
                    kept = each.picture if how["sheet"] or how.get("film") else None
                    done.append(Done(kept, each.settings, count, each.nfe, batch.labels))
    for path in records.written:
        echo(str(path))
    if unfinished.stopped:
        echo(str(unfinished.path))
        return
    _write_sheets(done, film, output, how)
    echo(_summary(done, time.perf_counter() - (begun or 0)), True)


def _write_sheets(
    done: Sequence[Done], film: _Film, output: Output, how: Mapping[str, Any]
) -> None:
    """What is made of several pictures or several steps, where that is wanted."""
    if how.get("film") and any(each.picture for each in done):
        frames = [each.picture for each in done if each.picture is not None]
        echo(str(output.save_film(frames, how["film_rate"])))
    if how["sheet"] and any(each.picture for each in done):
        echo(output.save_sheet(sheet_of([each for each in done if each.picture]), "sheet"))
    if film.empty and how["steps_sheet"]:
        tell("no step is left to show: there is no sheet of steps")
    elif how["steps_sheet"]:
        echo(output.save_sheet(film.strip(), "steps"))


@contextmanager
def _taken_back(output: Output) -> Iterator[None]:
    """Leaves no empty folder behind where nothing could be drawn; who is interrupted is told how
    many pictures there are."""
    try:
        yield
    except KeyboardInterrupt:
        output.take_back()
        raise KeyboardInterrupt(output.saved) from None
    except BaseException:
        output.take_back()
        raise


def _flagged(drawn: Drawn) -> str:
    """The line that tells what the filters said of a picture."""
    settings = drawn.settings
    gone = "; it is not written" if drawn.picture is None else ""
    who = f"{settings.prompt[:60]!r}, seed {settings.seed}"
    return f"{who}: flagged by {', '.join(drawn.flags)}{gone}"


def _steps(batch: Batch, factor: int) -> int:
    """How many steps are run for each of its pictures. factor: pixels of a latent's side."""
    from sdcore.hires import second_of
    from sdcore.starting import steps_run

    first, start, second = batch.settings[0], batch.start, batch.parts.second
    begun = None if start is None or start.sigma is None else start.sigma
    large = begun is not None and start is not None and start.x.shape[-1] * factor > first.width
    passes = [] if large else [(first, batch.parts.scheduler)]
    if second is not None:
        passes.append((second_of(first), second.scheduler))
    steps = 0
    for settings, scheduler in passes:
        plan = scheduler.plan(settings.steps)
        if begun is None:
            steps += steps_run(settings, plan)
        else:
            steps += sum(sigma < begun for sigma in batch.sigmas or plan.sigmas)
        begun = None  # in the next one
    return steps


def _rounds(batch: Batch, size: int) -> int:
    """How often so many of its pictures are drawn at once."""
    return -(-len(batch.settings) // max(1, size))


def _once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Tells the same line once."""
    told: set[str] = set()

    def once(line: str) -> None:
        if line not in told:
            told.add(line)
            tell(line)

    return once


def _summary(done: Sequence[Done], seconds: float) -> str:
    """How many pictures, of how many steps, and what they took."""
    steps = sorted({each.steps for each in done})
    asked = sorted({_asked(each.settings) for each in done})
    of = "" if asked == steps else f" of {_range(asked)}"
    nfe = sorted({each.nfe for each in done})
    plural = "s" * (len(done) > 1)
    return (
        f"{len(done)} picture{plural}, {_range(steps)}{of} steps, {_range(nfe)} NFE each, "
        f"{seconds:.2f} s"
    )


def _asked(settings: Settings) -> int:
    """The steps that were asked for, of both passes."""
    second = settings.steps if settings.hires_steps is None else settings.hires_steps
    return settings.steps + (0 if settings.hires is None else second)


def _range(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def sheet_of(done: Sequence[Done]) -> Image:
    """All pictures on one sheet.

    Where options were given several times, a part for each prompt and seed, in it a column for each
    value of the last of them and a row for each of the others'.
    """
    from sdcore.sheets import Section, compose, contact_sheet

    if not any(each.labels for each in done):
        captions = [f"{each.settings.prompt}\nseed {each.settings.seed}" for each in done]
        return contact_sheet([each.picture for each in done if each.picture], captions)
    sections: dict[tuple[Any, ...], list[Done]] = {}
    for each in done:
        s = each.settings
        negative = None if "negative" in each.labels else s.negative
        sections.setdefault((s.prompt, negative, s.seed), []).append(each)
    last = [name for each in done for name in each.labels][-1]
    columns = len({str(each.labels.get(last)) for each in done})
    return compose(
        [
            Section(
                f"{prompt}, seed {seed}",
                [each.picture for each in rows if each.picture],
                [_caption(each) for each in rows],
            )
            for (prompt, _, seed), rows in sections.items()
        ],
        columns,
    )


def _caption(done: Done) -> str:
    labels = [f"{name.replace('_', ' ')} {bare(str(v))}" for name, v in done.labels.items()]
    return "\n".join((*labels, f"{done.nfe} NFE"))


class _Film:
    """What each step thought, where that is wanted: a part of the strip for each picture."""

    COLUMNS = 10  # steps beside each other, at most

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self._captions: list[str] = []
        self._frames: list[list[Image]] = []  # by step, of the pictures drawn at once
        self._sections: list[tuple[Settings, Section]] = []

    def add(self, run: Enduring, step: Step) -> None:
        if not self.wanted:
            return
        from sdcore.sheets import Section

        if step.index == run.run.start.index:  # the first, perhaps of a second try
            self._captions, self._frames = [], []
        self._captions.append(f"{step.index + 1}  sigma {step.sigma:.3g}")
        self._frames.append(run.decode(step.prediction.x0))
        if step.index + 1 == step.count:
            for each, *frames in zip(run.run.settings, *self._frames, strict=True):
                size = f", {frames[0].width}x{frames[0].height}" * (each.hires is not None)
                title = "\n".join((f"{each.prompt}, seed {each.seed}{size}", *each.changes))
                self._sections.append((each, Section(title, frames, self._captions)))

    def leave_out(self, settings: Settings) -> None:
        """Not this picture, which a filter has flagged: its steps show what it does."""
        alike = [n for n, (drawn, _) in enumerate(self._sections)
                 if (drawn.prompt, drawn.seed) == (settings.prompt, settings.seed)]  # fmt: skip
        passes = 1 if settings.hires is None else 2
        for number in reversed(alike[-passes:]):
            del self._sections[number]

    @property
    def empty(self) -> bool:
        return not self._sections

    def strip(self) -> Image:
        from sdcore.sheets import compose

        sections = [section for _, section in self._sections]
        longest = max(len(each.captions) for each in sections)
        return compose(sections, -(-longest // -(-longest // self.COLUMNS)))


class _Bar:
    """A progress bar on stderr where that is a terminal, and nothing elsewhere."""

    def __init__(self) -> None:
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=0, unit="step", leave=False)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def grow(self, steps: int) -> None:
        """So many more are to come."""
        if self._bar is not None:
            self._bar.total += steps
            self._bar.refresh()

    def update(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def print(self, line: str) -> None:
        """A line on stdout that does not tear the bar."""
        if self._bar is not None:
            self._bar.clear()
        echo(line)
