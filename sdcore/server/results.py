"""A request that waits for its pictures, and gives up with its client."""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from sdcore.images import to_png
from sdcore.server import drawings
from sdcore.server.asked import Asked
from sdcore.server.drawings import OnStep
from sdcore.server.jobs import CANCELLED, ENDED, FAILED, Job
from sdcore.server.options import ServerOptions
from sdcore.server.refusals import Unready
from sdcore.server.worker import Worker

if TYPE_CHECKING:
    from sdcore.drawing import Drawn

POLL = 0.1  # seconds between two looks at whether the client is still there


@dataclass(frozen=True)
class Result:
    """What came of a request."""

    job: Job
    drawings: list[Drawn]

    @property
    def notes(self) -> list[str]:
        """A line for whatever should be known."""
        return [event.data["line"] for event in self.job.events if event.kind == "note"]

    @property
    def batched(self) -> int:
        """With how many pictures at once they were drawn."""
        return max((e.data["batch"] for e in self.job.events if e.kind == "step"), default=1)


async def drawn(
    worker: Worker, asked: Asked, request: Request, api: str, on_step: OnStep | None = None
) -> Result:
    """The pictures. Where the client goes away the job is cancelled: the worker is free within one
    evaluation of the network. Raises what became of it."""
    job = await run_in_threadpool(drawings.submit, worker, asked, on_step, api)
    await ended(worker, job, request)
    return Result(job, job.result)


async def ended(worker: Worker, job: Job, request: Request) -> None:
    """Until the job has ended or its client has gone; then it is forgotten. Raises its error."""
    try:
        follower = asyncio.ensure_future(_to_the_end(job))
        try:
            while job.state not in ENDED:
                done, _ = await asyncio.wait([follower], timeout=POLL)
                if not done and await request.is_disconnected():
                    break
        finally:
            follower.cancel()
    finally:
        worker.cancel(job)
        worker.forget(job)
    if job.state == FAILED and job.error is not None:
        raise job.error
    if job.state == CANCELLED or job.result is None:
        raise Unready("it was cancelled", retry_after=1)


async def _to_the_end(job: Job) -> None:
    async for _ in job.follow(len(job.events)):
        pass


async def png(worker: Worker, one: Drawn, options: ServerOptions) -> bytes:
    """The picture as a PNG file with its settings."""
    settings = worker.models.shown(one.settings)
    return await run_in_threadpool(to_png, one.picture, settings, not options.no_settings)
