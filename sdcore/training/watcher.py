"""Whoever is told how far a training is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from sdcore.training.updates import TrainStep

Tell = Callable[[str], None]  # gets a line for whatever should be known


class Watcher(Protocol):
    """Whoever shows how far it is."""

    def bar(self, what: str, things: Sequence[Any]) -> Iterable[Any]:
        """The things, one after another."""
        ...

    def step(self, step: TrainStep, total: int) -> None: ...


class Silent:
    """Nobody."""

    def bar(self, what: str, things: Sequence[Any]) -> Iterable[Any]:
        return things

    def step(self, step: TrainStep, total: int) -> None:
        pass
