"""A run that shows itself in a notebook while it is drawn.

    for step in watch(run):
        ...

Runs, plans, schedulers, lists of pictures, trajectories and comparisons need nothing of this: as
the last value of a cell they show themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sdcore.errors import InputError
from sdcore.run import Run
from sdcore.sampling import Step
from sdcore.sheets import Pictures, as_png


class Preview(Pictures):
    """Pictures that are not done, and how far they are."""

    def __init__(self, pictures: Pictures, caption: str) -> None:
        super().__init__(pictures)
        self.caption = caption

    def __repr__(self) -> str:
        return self.caption

    def _repr_png_(self) -> bytes:
        return as_png(self.sheet([self.caption, *[""] * (len(self) - 1)]))


def watch(run: Run, every: int = 1) -> Iterator[Step]:
    """The steps of a run, with what the network believes the pictures to be shown beside them.

    One output of the cell is drawn over at every `every`-th step, decoded by the VAE, which takes
    as long each time as a finished picture does; at the end it holds the pictures. In a terminal a
    line of text stands for each. What the loop does with a step (`step.x_next = ...`) counts as it
    does without.

    Raises InputError where IPython is not there, and for an `every` below 1.
    """
    if every < 1:
        raise InputError(f"a preview comes with every step, or every second ..., not every {every}")
    return _watched(run, every, _display())


def _display() -> Any:
    try:
        from IPython.display import display  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "previews are for notebooks, and IPython is not there: pip install ipython, or iterate "
            "over the run itself"
        ) from None
    return display


def _watched(run: Run, every: int, display: Any) -> Iterator[Step]:
    shown, step = None, None
    for number, step in enumerate(run.steps()):
        if number % every == 0:
            caption = f"step {step.index + 1} of {step.count}, sigma {step.sigma:.3g}"
            preview = Preview(run.pictures(step.prediction.x0), caption)
            if shown is None:
                shown = display(preview, display_id=True)
            else:
                shown.update(preview)
        yield step
    if shown is not None and step is not None:
        shown.update(Preview(run.decode(step.x_next), f"{step.count} steps, done"))
