"""Server-sent events: a job's progress as a stream that a browser reads."""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse

ALIVE = 15.0  # seconds without an event, after which a comment says that the stream is there


@dataclass(frozen=True)
class Sent:
    """One event."""

    data: Mapping[str, Any]
    event: str | None = None
    id: int | None = None  # what the client names when it comes back: Last-Event-ID

    def __str__(self) -> str:
        lines = [] if self.id is None else [f"id: {self.id}"]
        lines += [] if self.event is None else [f"event: {self.event}"]
        data = json.dumps(self.data, allow_nan=False, separators=(",", ":"))  # one line of ASCII
        return "\n".join((*lines, f"data: {data}", "", ""))


def stream(events: AsyncIterator[Sent], alive: float = ALIVE) -> StreamingResponse:
    """The answer that sends these events as they come; `events` is closed where the client goes."""
    return StreamingResponse(
        _written(events, alive),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _written(events: AsyncIterator[Sent], alive: float) -> AsyncIterator[str]:
    waiting: asyncio.Future[Sent] | None = None
    try:
        while True:
            if waiting is None:
                waiting = asyncio.ensure_future(_next(events))
            done, _ = await asyncio.wait([waiting], timeout=alive)
            if not done:
                yield ": alive\n\n"
                continue
            try:
                sent = waiting.result()
            except StopAsyncIteration:
                return
            waiting = None
            yield str(sent)
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await events.aclose()  # type: ignore[attr-defined]


async def _next(events: AsyncIterator[Sent]) -> Sent:
    return await anext(events)
