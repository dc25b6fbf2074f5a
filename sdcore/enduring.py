"""Where memory runs out: the same work once more, in the next leaner mode of memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from sdcore.errors import InputError
from sdcore.free_memory import give_back, is_out_of_memory
from sdcore.networks import Networks
from sdcore.run import Run
from sdcore.sampling import Step

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

N = TypeVar("N", bound=Networks)
T = TypeVar("T")
Tell = Callable[[str], None]  # takes one line for the user


class OutOfMemory(InputError):
    """Even the leanest mode is too much for these networks."""

    def __init__(self, networks: Networks, what: str, run: Run | None = None) -> None:
        super().__init__(
            f"out of memory on {networks.device} for {what}, even with --memory low: ask for a "
            "smaller picture (--width, --height), or allow one (--fallback size)"
        )
        self.networks, self.run = networks, run


def within_memory(
    work: Callable[[N], T], networks: N, tell: Tell, what: str = "reading the prompts"
) -> T:
    """What `work` makes of these networks, put into leaner modes until it fits.

    Raises OutOfMemory, naming `what`, where even the leanest is too much.
    """
    while True:
        try:
            return work(networks)
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the except clause, whose traceback holds on to the tensors.
        give_back()
        leaner = networks.leaner()
        if leaner is None:
            raise OutOfMemory(networks, what)
        networks = leaner
        tell(f"out of memory; going on with --memory {networks.memory}")


class Enduring:
    """A run that goes on in a leaner mode of memory, telling so, where there is not enough of it.

    run: as it is now. Raises OutOfMemory where even the leanest mode is too much.
    """

    def __init__(self, run: Run, tell: Tell) -> None:
        self.run, self.tell = run, tell

    def __iter__(self) -> Iterator[Step]:
        x = yield from self._one_pass()
        if self.run.then is not None:
            latents = x * self.run.end_scale
            while (second := self._tried(lambda: self.run.second(latents))) is None:
                pass
            self.run = second
            yield from self._one_pass()

    def _one_pass(self) -> Generator[Step, None, Tensor]:
        """The steps of the run, without its second pass; returns the last x."""
        x, start, last = self.run.start.x, None, len(replace(self.run, then=None)) == 0
        while not last:
            steps = self.run.one_pass(start)
            while (step := self._tried(lambda steps=steps: next(steps))) is not None:
                yield step
                x, start, last = step.x_next, step.state, step.index + 1 == step.count
                if last:
                    break
        return x

    def decode(self, x: Tensor) -> list[Image]:
        """The pictures of unit-variance latents."""
        while (pictures := self._tried(lambda: self.run.pictures(x))) is None:
            pass
        return pictures

    def _tried(self, work: Callable[[], T]) -> T | None:
        """What `work` returns; None where memory ran out, and `run` is leaner now."""
        try:
            return work()
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the except clause, whose traceback holds on to the tensors.
        give_back()
        leaner = self.run.leaner()
        if leaner is None:
            factor = self.run.networks.vae.config.factor
            height, width = (side * factor for side in self.run.start.x.shape[-2:])
            size = f"{width}x{height}"
            raise OutOfMemory(self.run.networks, size, self.run)
        self.run = leaner
        self.tell(f"out of memory; going on with --memory {leaner.networks.memory}")
        return None
