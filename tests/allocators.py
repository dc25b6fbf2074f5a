"""Devices with less memory than there is, for tests of what happens then."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

SAID = "CUDA out of memory. Tried to allocate 2 GiB"


def failing(
    monkeypatch: pytest.MonkeyPatch, kind: type, method: str, calls: set[int] | range
) -> list[int]:
    """Let these calls of a method run out of memory; what is returned counts them all."""
    seen: list[int] = []

    def full(*_: Any) -> bool:
        seen.append(len(seen))
        return seen[-1] in calls

    _raising(monkeypatch, kind, method, full)
    return seen


def roomy(monkeypatch: pytest.MonkeyPatch, kind: type, method: str, most: int) -> list[int]:
    """Let a method run out of memory where its first argument has more than `most` values; what is
    returned has the values of every call."""
    seen: list[int] = []

    def full(_: Any, given: torch.Tensor, *__: Any) -> bool:
        seen.append(given.numel())
        return seen[-1] > most

    _raising(monkeypatch, kind, method, full)
    return seen


def _raising(
    monkeypatch: pytest.MonkeyPatch, kind: type, method: str, full: Callable[..., bool]
) -> None:
    real = getattr(kind, method)

    def instead(*args: Any, **more: Any) -> Any:
        if full(*args):
            raise torch.OutOfMemoryError(SAID)
        return real(*args, **more)

    monkeypatch.setattr(kind, method, instead)
