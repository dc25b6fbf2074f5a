"""A request that waits for its pictures, and gives up with its client."""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from sdcore.images import check_form, to_bytes
from sdcore.picture_form import Form
from sdcore.server import drawings
from sdcore.server.asked import read
from sdcore.server.drawings import OnStep
from sdcore.server.jobs import CANCELLED, ENDED, FAILED, Job
from sdcore.server.options import ServerOptions
from sdcore.server.refusals import Unready
from sdcore.server.worker import Worker
from sdcore.settings import Settings

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


async def begun(
    worker: Worker,
    given: Mapping[str, Any],
    api: str,
    on_step: OnStep | None = None,
    form: Form | None = None,
) -> Job:
    """The job that draws what is asked for, as `asked.read` takes it. form: of the file that comes
    of it, which must have room for the settings. Raises Refused, InputError.

    In a thread: a request may hold pictures, and a scheduler is rehearsed.
    """

    def fits(settings: Settings) -> None:
        if form is not None:
            check_form(worker.models.shown(settings), form)

    def begin() -> Job:
        asked = read(given, worker.models, worker.limits)
        return drawings.submit(worker, asked, on_step, api, check=fits)

    return await run_in_threadpool(begin)


async def gone(job: Job, request: Request) -> bool:
    """Waits until the job has ended, or its client has gone; whether that is why."""
    follower = asyncio.ensure_future(_to_the_end(job))
    try:
        while job.state not in ENDED:
            done, _ = await asyncio.wait([follower], timeout=POLL)
            if not done and await request.is_disconnected():
                return True
    finally:
        follower.cancel()
    return False


async def ended(worker: Worker, job: Job, request: Request) -> Result:
    """What came of a job. Where the client goes away it is cancelled: the worker is free within one
    evaluation of the network. Raises what became of it."""
    try:
        await gone(job, request)
    finally:
        worker.cancel(job)
        worker.forget(job)
    if job.state == FAILED and job.error is not None:
        raise job.error
    if job.state == CANCELLED or job.result is None:
        raise Unready("it was cancelled", retry_after=1)
    return Result(job, job.result)


async def _to_the_end(job: Job) -> None:
    async for _ in job.follow(len(job.events)):
        pass


async def encoded(
    worker: Worker, one: Drawn, options: ServerOptions, form: Form | None = None
) -> bytes:
    """The picture as a file with its settings; without a form a PNG."""
    settings = worker.models.shown(one.settings)
    form = form_of(options) if form is None else form
    return await run_in_threadpool(to_bytes, one.shown, settings, form)


def form_of(options: ServerOptions, kind: str = "png", quality: int | None = None) -> Form:
    """How a picture is written. quality: 0 to 100, of what loses something."""
    most = None if kind == "png" or quality is None else max(1, quality)
    return Form(kind, most, whole=not options.no_settings, mark=not options.no_mark)
