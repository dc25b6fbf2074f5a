"""Ctrl-C between two steps: the step is ended and saved. A second one ends at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A training that was stopped by its user, and saved."""

    def __init__(self, step: int, total: int, place: Path) -> None:
        super().__init__(
            f"stopped after step {step} of {total}, and saved: the same command goes on"
        )
        self.step, self.total, self.place = step, total, place


@dataclass
class Stop:
    """Whether somebody has asked for an end."""

    asked: bool = False


@contextmanager
def stopping() -> Iterator[Stop]:
    """In here SIGINT and SIGTERM ask for an end, and the second of them is one."""
    stop = Stop()
    if current_thread() is not main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    ours = [n for n, handler in before.items() if handler is not signal.SIG_IGN]
    for number in ours:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number in ours:
            signal.signal(number, before[number])
