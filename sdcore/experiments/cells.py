"""The cells of an experiment: one picture each, named by what is asked for, and who draws them."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from sdcore.chosen import base_of, overlaid, request_of
from sdcore.complete import complete
from sdcore.drawing import draw
from sdcore.loading import load
from sdcore.networks import Networks
from sdcore.picture_options import OPTIONS, Options
from sdcore.request import Parts, parts_of
from sdcore.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdcore.enduring import Enduring
    from sdcore.sampling import Step

HOW = ("device", "memory", "engine")  # where and how it is computed: no part of what is asked for


@dataclass(frozen=True)
class Cell:
    """One picture that is asked for.

    options: by the names of `sdcore.picture_options.OPTIONS`; what is None or () is left to the
        model.
    labels: those of them that differ between the cells of an experiment.
    tagged: the prompt as it was given, where that names adapters too.
    """

    prompt: str
    seed: int
    options: Mapping[str, Any]
    labels: Mapping[str, Any] = field(default_factory=dict)
    tagged: str | None = None

    @property
    def asked(self) -> str:
        """The prompt as it was given."""
        return self.prompt if self.tagged is None else self.tagged

    @cached_property
    def id(self) -> str:
        """16 hex digits of what is asked for: the same on any machine, in any order of options."""
        asked = {name: value for name, value in self.options.items()
                 if value not in (None, ()) and name not in HOW}  # fmt: skip
        text = json.dumps([self.prompt, self.seed, asked], sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def shared(self) -> str:
        """The same for cells that may be drawn in one batch."""
        given = {name: self.options.get(name) for name in OPTIONS}
        return repr(sorted((name, str(value)) for name, value in given.items()
                           if value not in (None, ())))  # fmt: skip

    def asking(self, **options: Any) -> Cell:
        """The same cell with some of its options other ones."""
        return replace(self, options={**self.options, **options})


@dataclass(frozen=True)
class Drawing:
    """A cell that was drawn."""

    picture: Image
    latents: Tensor  # [C,h,w], unit variance
    settings: Settings
    nfe: int
    draws: int  # of noise in the loop: above 0 the solver is stochastic
    seconds: float  # of its share of the batch


class Studio:
    """Draws cells, and keeps what the next ones need too: the networks, and the texts as read."""

    def __init__(self, tell: Callable[[str], None] = lambda line: None) -> None:
        self.tell = tell
        self._base: tuple[str, Any] = ("", None)
        self._over: tuple[str, Any] = ("", None)  # the same, with what lies over them
        self._parts: dict[str, tuple[Any, Parts]] = {}

    def networks(self, cell: Cell) -> Networks:
        """What draws the cell; loaded where the last cell's were others."""
        chosen = {"loras": (), "embeddings": (), **cell.options}
        source = base_of(chosen)
        if self._base[0] != repr(source):
            self._over = "", None
            self._base = "", None  # two large models at once are one too many
            self._base = repr(source), load(**source)
        over = repr((source, chosen["loras"], chosen["embeddings"]))
        if self._over[0] != over:
            self._parts.clear()
            self._over = over, remembering(overlaid(self._base[1], chosen, self.tell))
        return cast(Networks, self._over[1])

    def ready(self, cells: Sequence[Cell]) -> tuple[Networks, list[Settings], Parts]:
        """What is needed to draw cells of the same options. Raises InputError."""
        networks, options = self.networks(cells[0]), cells[0].options
        key = repr([str(options.get(each.name)) for each in fields(Options)])
        if key not in self._parts:
            request = request_of(options, prompts="", seeds=0)
            self._parts[key] = request, parts_of(request, networks)
        request, parts = self._parts[key]
        request = replace(request, negative=options.get("negative"))
        return networks, [
            complete(replace(request, prompts=cell.prompt, seeds=cell.seed), networks, parts)[0]
            for cell in cells
        ], parts  # fmt: skip

    def draw(self, cells: Sequence[Cell], beat: Callable[[], None] = lambda: None) -> list[Drawing]:
        """Cells of the same options, as one batch. beat: is called at every step."""
        networks, settings, parts = self.ready(cells)
        ends: list[tuple[Tensor, int]] = []

        def watch(run: Enduring, step: Step) -> None:
            beat()
            if step.index + 1 == step.count:
                ends.append((step.x_next * run.run.end_scale, step.draws))

        begun = time.perf_counter()
        drawn = list(draw(networks, settings, parts, batch=len(cells), watch=watch, tell=self.tell))
        seconds = (time.perf_counter() - begun) / len(cells)
        latents, draws = ends[-1]
        rows = latents.detach().float().cpu()
        return [
            Drawing(each.shown, row, each.settings, each.nfe, draws, seconds)
            for each, row in zip(drawn, rows, strict=True)
        ]

    def batch(self, cell: Cell, wanted: int | None) -> int:
        """How many are drawn at once: on a CPU one, where more are no faster."""
        if wanted is not None:
            return wanted
        return 1 if self.networks(cell).device.type == "cpu" else 4


def remembering(networks: Networks) -> Networks:
    """The same networks, whose text encoders read each text once."""
    return networks.with_modules(
        {reader.name: _remembering(reader.encoder) for reader in networks.readers}
    )


def _remembering(encoder: Any) -> Any:
    twin, forward, answers = copy.copy(encoder), encoder.forward, {}

    def remembered(ids: Tensor, *more: Any, **named: Any) -> Any:
        key = (tuple(ids.shape), tuple(ids.flatten().tolist()), repr((more, named)))
        if key not in answers:
            with torch.no_grad():
                answers[key] = forward(ids, *more, **named)
        return answers[key]

    twin.forward = remembered
    return twin


def batches(cells: Sequence[Cell], size: Callable[[Cell], int]) -> list[list[Cell]]:
    """The cells in the order given, those that follow each other under the same options joined."""
    joined: list[list[Cell]] = []
    for cell in cells:
        last = joined[-1] if joined else []
        if last and last[0].shared == cell.shared and len(last) < size(cell):
            last.append(cell)
        else:
            joined.append([cell])
    return joined
