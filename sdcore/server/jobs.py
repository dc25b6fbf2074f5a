"""Jobs: what was asked of the worker, how far it is, and what came of it."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sdcore.server.models import Choice

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)
AGAIN = "again"  # an event: what was told of its steps so far is void, it is drawn anew


class Cancelled(Exception):
    """Raised where a job finds that it was cancelled."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. kind: a state of it, "loading", "step", "note" ..."""

    id: int  # 1, 2, 3 ... of its job
    kind: str
    data: Mapping[str, Any]


@dataclass(eq=False)
class Job:
    """One piece of work. The worker's thread writes, any thread reads.

    result: what the work returned. error: why it failed. kept: what is held on to beside the result
    until the job is forgotten; `size` says how many bytes all of that takes. given: the bytes of
    the pictures that it was asked with, by their id(): several jobs may hold the same one.
    """

    choice: Choice  # the networks that it is done with
    cost: float  # as `Limits` counts work; 0: next to nothing
    key: object = None  # jobs of equal keys may be done at once; None: alone
    pictures: int = 1
    task: Any = None  # what it is to do, for the work to know
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: str = QUEUED
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    result: Any = None
    error: Exception | None = None
    size: int = 0
    given: Mapping[int, int] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    pause: Callable[[], None] = lambda: None  # what the worker does between two steps
    bare: Callable[[str], str] = str  # what is told of a text: without places that are hidden
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _listeners: set[Callable[[], None]] = field(default_factory=set)

    @property
    def cancelled(self) -> bool:
        """Whether it shall not go on: asked for, perhaps not yet done."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Called by the work between two steps. Raises Cancelled."""
        self.pause()
        if self.cancelled:
            raise Cancelled

    def mark_cancelled(self) -> None:
        """Leave it at the next `check`. To cancel a job is `Worker.cancel`."""
        self._cancelled.set()

    def tell(self, kind: str, **data: Any) -> None:
        """Let everybody who follows know."""
        data = {key: self.bare(each) if isinstance(each, str) else each
                for key, each in data.items()}  # fmt: skip
        with self._changed:
            if kind in (RUNNING, *ENDED):
                self.state = kind
            if kind == RUNNING:
                self.started = time.time()
            if kind in ENDED:
                self.ended = time.time()
            self.events.append(Event(len(self.events) + 1, kind, data))
            self._changed.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def wait(self, timeout: float | None = None) -> bool:
        """Until it has ended; whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: self.state in ENDED, timeout)

    async def follow(self, after: int = 0) -> AsyncIterator[Event]:
        """Its events behind number `after`, as they come, to the last one."""
        loop, more = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has been closed since it was asked to
                loop.call_soon_threadsafe(more.set)

        with self._changed:
            self._listeners.add(wake)
        try:
            at = max(after, 0)
            while True:
                more.clear()
                waiting = self.events[at:]
                at += len(waiting)
                for event in waiting:
                    yield event
                if not waiting and self.state in ENDED and at >= len(self.events):
                    return
                if not waiting:
                    await more.wait()
        finally:
            with self._changed:
                self._listeners.discard(wake)
