"""Schedulers side by side, each as far from the exact solution as it is.

The exact solution is another run of the same problem: the same model, words, seed and guidance,
solved by many steps of one good solver. What is compared is the last latents.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sdcore.errors import InputError
from sdcore.experiments.cells import HOW, Cell, Drawing, Studio, batches
from sdcore.experiments.distances import InDistribution, in_distribution, rms
from sdcore.experiments.store import Store
from sdcore.images import psnr, to_tensor
from sdcore.paths import home
from sdcore.settings import Settings

# What solves a problem, and is no part of it: the reference has its own of each.
SOLVING = ("scheduler", "spacing", "steps", "tail", "eta", "noise", "lossy")
STARTS = ("image", "strength", "start_sigma", "start_step")


@dataclass(frozen=True)
class Reference:
    """How the exact solution is approached. Its own error is told by half as many steps."""

    scheduler: str = "dpmpp_2m"
    spacing: str = "karras"
    steps: int = 100

    def of(self, cell: Cell, steps: int | None = None) -> Cell:
        """The cell that solves the same problem."""
        options = {k: v for k, v in cell.options.items() if k not in SOLVING}
        options |= {"scheduler": self.scheduler, "spacing": self.spacing}
        options["steps"] = self.steps if steps is None else steps
        return Cell(cell.prompt, cell.seed, options)


@dataclass(frozen=True)
class Row:
    """A cell beside its reference.

    error: root mean square of the latents' difference; most: the largest; psnr: of the pictures, in
    dB. None where the solver draws noise: then `distribution` says how far all seeds together are.
    """

    cell: Cell
    drawing: Drawing
    reference: Drawing
    reference_error: float
    error: float | None
    most: float | None
    psnr: float | None
    distribution: InDistribution | None = None

    @property
    def stochastic(self) -> bool:
        return self.drawing.draws > 0

    def facts(self) -> dict[str, Any]:
        """Plain values, for CSV and JSON."""
        s, far = self.drawing.settings, self.distribution
        names = ("scheduler", "spacing", "steps", "cfg", "guidance", "eta", "dtype", "model")
        of_set = {} if far is None else asdict(far)
        return {
            "id": self.cell.id,
            "prompt": s.prompt,
            "seed": s.seed,
            **{name: getattr(s, name) for name in names},
            "nfe": self.drawing.nfe,
            "seconds": round(self.drawing.seconds, 4),
            "stochastic": self.stochastic,
            "error": self.error,
            "largest_error": self.most,
            "psnr": self.psnr,
            "reference_error": self.reference_error,
            "energy_distance": of_set.get("energy"),
            "p": of_set.get("p"),
        }


def cache_folder() -> Path:
    """Where references are kept: $XDG_CACHE_HOME/sdcore/references, or ~/.cache/..."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home() / ".cache") / "sdcore" / "references"


def compare(
    cells: Sequence[Cell],
    folder: Path,
    reference: Reference | None = None,
    *,
    cache: Path | None = None,
    batch: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
    done: Callable[[int], None] = lambda steps: None,
) -> list[Row]:
    """Draw the cells that are not in `folder` yet, and set each beside its reference.

    cache: where references are kept by a digest of all that decides them; None: `cache_folder()`.
    batch: how many are drawn at once; None: one on a CPU, where more are no faster, else four.
    done: is told how many steps of how many pictures were run, each time.

    Raises InputError for a cell that begins at a picture: each grid begins it elsewhere.
    """
    reference = Reference() if reference is None else reference
    for cell in cells:
        for name in STARTS:
            if cell.options.get(name) is not None:
                raise InputError(
                    f"{name} begins each schedule at a level of its own, which nothing can be "
                    "compared with: compare from noise"
                )
    studio = Studio(tell)
    kept = Store(cache_folder() if cache is None else cache)
    drawings = _drawn(studio, cells, Store(folder), lambda c, s: c.id, batch, done)
    exact, half = (
        _drawn(
            studio, [reference.of(cell, steps) for cell in cells], kept, _digest, batch, done
        )
        for steps in (reference.steps, max(1, reference.steps // 2))
    )  # fmt: skip
    rows = [
        _beside(cell, drawings[cell.id], *(by[reference.of(cell, n).id] for by, n in
                ((exact, reference.steps), (half, max(1, reference.steps // 2)))))
        for cell in cells
    ]  # fmt: skip
    return _with_distributions(rows)


def _drawn(
    studio: Studio,
    cells: Iterable[Cell],
    store: Store,
    name: Callable[[Cell, Settings], str],
    batch: int | None,
    done: Callable[[int], None],
) -> dict[str, Drawing]:
    """By id, every cell's drawing: from the store, or drawn and put there."""
    drawings: dict[str, Drawing] = {}
    waiting: list[Cell] = []
    names: dict[str, str] = {}
    for cell in {each.id: each for each in cells}.values():
        _, (settings,), _ = studio.ready([cell])
        names[cell.id] = name(cell, settings)
        kept = store.get(names[cell.id])
        if kept is None or _asked(kept.settings) != _asked(settings):
            waiting.append(cell)
        else:
            drawings[cell.id] = kept
    for group in batches(waiting, lambda cell: studio.batch(cell, batch)):
        for cell, drawing in zip(
            group, studio.draw(group, lambda group=group: done(len(group))), strict=True
        ):
            store.put(names[cell.id], drawing)
            drawings[cell.id] = drawing
    return drawings


def _asked(settings: Settings) -> Settings:
    """What decides a picture, but for rounding."""
    return replace(settings, **dict.fromkeys(HOW, ""))


def _digest(cell: Cell, settings: Settings) -> str:
    return hashlib.sha256(_asked(settings).to_json().encode()).hexdigest()[:32]


def _beside(cell: Cell, drawing: Drawing, exact: Drawing, half: Drawing) -> Row:
    own = rms(exact.latents - half.latents) / 3  # Richardson, for a solver of order 2
    if drawing.draws:
        return Row(cell, drawing, exact, own, None, None, None)
    gap = drawing.latents.double() - exact.latents.double()
    pictures = (to_tensor(each.picture) for each in (drawing, exact))
    return Row(cell, drawing, exact, own, rms(gap), gap.abs().max().item(), psnr(*pictures))


def _with_distributions(rows: Sequence[Row]) -> list[Row]:
    """The rows, those of stochastic solvers with the distance of all their seeds."""
    sets: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        sets.setdefault((row.cell.prompt, row.cell.shared), []).append(row)
    far: dict[tuple[str, str], InDistribution | None] = {}
    for key, members in sets.items():
        if members[0].stochastic:
            pairs: list[tuple[Tensor, Tensor]] = [
                (each.drawing.latents, each.reference.latents) for each in members
            ]
            far[key] = in_distribution(*map(list, zip(*pairs, strict=True)))
    return [replace(row, distribution=far.get((row.cell.prompt, row.cell.shared))) for row in rows]
