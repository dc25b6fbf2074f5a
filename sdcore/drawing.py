"""Many pictures, one batch after another, on whatever memory there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sdcore.enduring import Enduring, OutOfMemory, Tell, within_memory
from sdcore.errors import InputError
from sdcore.filters import Filter, filtered
from sdcore.free_memory import give_back
from sdcore.inversion import Recorded
from sdcore.networks import Networks
from sdcore.picture_options import Size
from sdcore.prepare import prepare
from sdcore.request import Parts
from sdcore.run import Run, unchanged
from sdcore.sampling import Denoise, State, Step
from sdcore.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

Watch = Callable[[Enduring, Step], None]  # gets the run, as it is now, and each of its steps


@dataclass(frozen=True)
class Drawn:
    """A picture that is done."""

    picture: Image | None  # None: a filter says that nobody gets it
    settings: Settings  # as it was drawn, with what the filters said of it
    nfe: int
    size: Size  # width and height, of the second pass where there are two

    @property
    def flags(self) -> tuple[str, ...]:
        """The names of the filters that flagged it."""
        return self.settings.flags

    @property
    def shown(self) -> Image:
        """The picture, or a black one in place of one that nobody gets."""
        from PIL import Image as pillow

        return pillow.new("RGB", self.size) if self.picture is None else self.picture


def draw(
    networks: Networks,
    settings: Sequence[Settings],
    parts: Parts,
    *,
    batch: int = 1,
    start: State | None = None,
    noise: Recorded | None = None,
    sigmas: Sequence[float] = (),
    smaller: bool = False,
    watch: Watch = lambda run, step: None,
    around: Callable[[Denoise], Denoise] = unchanged,
    filters: Sequence[Filter] = (),
    tell: Tell = lambda line: None,
) -> Iterator[Drawn]:
    """Draw every picture of `settings`, and hand each over as soon as it is done.

    Words are encoded batch by batch, so that the first picture does not wait for the last one's.
    Where memory runs out the run goes on in a leaner mode, and all that come after it begin in it.

    Args:
        batch: how many are drawn at once.
        start: where the first batch stands already; None: at its beginning.
        noise: the draws that it goes on with; None: its seeds'.
        sigmas: those in which `start` counts; (): the settings' own, or those of them below it.
        smaller: whether pictures that do not fit even so may be drawn with sides of three quarters.
        watch: gets every step.
        around: laid around the model, as `Run.around` is.
        filters: what looks at the pictures before they are handed over: `sdcore.filters`.
        tell: gets a line for each prompt that was cut, and for whatever else should be known.

    Raises:
        InputError: a batch of none; a filter that fails; memory runs out, and there is nothing more
            that may be done.
    """
    if batch < 1:
        raise InputError(f"a batch has at least 1 picture, not {batch}")
    drawing = _Drawing(networks, parts, batch, smaller, watch, around, filters, tell)
    # What is wrong with the first words is told before anything is drawn.
    run = drawing.ready(networks, settings)
    if start is not None:
        run = run.resumed(start, sigmas)
        if noise is not None:
            run = run.as_said(noise=noise.to(run.start.x.device))
    return drawing.pictures(run, settings)


@dataclass(frozen=True)
class _Drawing:
    """What is the same for every batch: the arguments of `draw`."""

    networks: Networks
    parts: Parts
    batch: int
    smaller: bool
    watch: Watch
    around: Callable[[Denoise], Denoise]
    filters: Sequence[Filter]
    tell: Tell
    _told: set[str] = field(default_factory=set, init=False)  # warnings: each is told once

    def ready(self, networks: Networks, waiting: Sequence[Settings]) -> Run:
        """The run of the next pictures."""
        next_ones = waiting[: self.batch]
        run = within_memory(lambda n: prepare(n, next_ones, self.parts), networks, self.tell)
        run = run.on(run.networks).as_said(around=self.around)
        for line in (each for each in run.warnings if each not in self._told):
            self.tell(line)
        self._told.update(run.warnings)
        return run

    def pictures(self, run: Run, waiting: Sequence[Settings]) -> Iterator[Drawn]:
        """Those of `run`, the first of the waiting ones, and of one run after the other."""
        while True:
            try:
                lean, done, nfe = _drawn(run, self.watch, self.tell)
            except OutOfMemory as error:
                # Networks in the leanest mode are not given up: what comes next is as large.
                mode, size = self._held_as(error.networks), _smaller(waiting[0], self.networks)
                if not self.smaller or size is None:
                    raise
            else:
                sizes = [picture.size for picture in done]
                looked_at = filtered(done, lean.settings, self.filters)
                for (picture, each), size in zip(looked_at, sizes, strict=True):
                    yield Drawn(picture, each, nfe, size)
                mode, size = self._held_as(lean.networks), None
                waiting = waiting[self.batch :]
                del run, lean, done
                give_back()
            if not waiting:
                return
            if size is not None:
                self.tell(f"out of memory; drawing {size[0]}x{size[1]} instead")
                waiting = [_resized(each, size, self.parts) for each in waiting]
            run = self.ready(mode, waiting)

    def _held_as(self, drew: Networks) -> Networks:
        """The networks given, in the mode of memory of those that drew: these have the seams and
        the FreeU of their pictures."""
        return replace(self.networks, memory=drew.memory)


def _drawn(run: Run, watch: Watch, tell: Tell) -> tuple[Run, list[Image], int]:
    """The run as it ended, its pictures, and the evaluations that each took."""
    lean, nfe, x = Enduring(run, tell), 0, run.start.x
    with run.without_gradients():
        for step in lean:
            nfe, x = nfe + step.nfe, step.x_next
            watch(lean, step)
        pictures = lean.decode(x * lean.run.end_scale)
    return lean.run, pictures, nfe


def _smaller(settings: Settings, networks: Networks) -> Size | None:
    """Three quarters of the size; None where that is too small to be a picture."""
    factor = networks.vae.config.factor
    width, height = (n * 3 // 4 // factor * factor for n in (settings.width, settings.height))
    return None if min(width, height) < 8 * factor else (width, height)


def _resized(settings: Settings, size: Size, parts: Parts) -> Settings:
    """The same picture of another size, which is what SDXL is told of it too."""
    old = (settings.width, settings.height)
    told = {name: size for name in ("original_size", "target_size")
            if getattr(settings, name) == old}  # fmt: skip
    canvas = None if parts.canvas is None else parts.canvas.scaled(*size).digest
    asked = old if settings.asked is None else settings.asked
    width, height = size
    return replace(
        settings, width=width, height=height, canvas=canvas, asked=asked, **told,
    )  # fmt: skip
