"""AUTOMATIC1111's API: /sdapi/v1/*, as far as there is something behind it.

A request is one job for each picture, so that what is interrupted leaves what is done, and "skip"
is one picture. Whoever asks sees the progress of requests from the same address alone, and
interrupts no other's.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from sdcore.run import Run
from sdcore.sampling import Step
from sdcore.server import drawings
from sdcore.server.a1111 import lists
from sdcore.server.a1111.fields import ImageToImage, TextToImage
from sdcore.server.a1111.info import info_of, interrupted_file, read_info
from sdcore.server.a1111.preferences import Preferences, preferred
from sdcore.server.a1111.requests import Wanted, wanted
from sdcore.server.answers import Json
from sdcore.server.asked import read
from sdcore.server.jobs import CANCELLED, DONE, ENDED, FAILED, QUEUED, Job
from sdcore.server.options import ServerOptions
from sdcore.server.previews import estimate
from sdcore.server.refusals import Refused, Unready
from sdcore.server.results import encoded, gone
from sdcore.server.worker import Worker

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdcore.drawing import Drawn
    from sdcore.networks import Networks

PREVIEW = 2.0  # seconds between two decoded previews, at least


class PngInfo(BaseModel):
    """A picture whose settings are asked for."""

    image: str


@dataclass(eq=False)
class Open:
    """A request that is not answered yet."""

    client: str
    jobs: list[Job]
    stopped: bool = False  # interrupted
    created: float = field(default_factory=time.time)

    @property
    def done(self) -> int:
        return sum(job.state in ENDED for job in self.jobs)


class Desk:
    """The requests that are open, and what POST options chose. All of it may be asked by any
    thread."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.requests: list[Open] = []
        self.preferences = Preferences(worker.models.default)
        self.lock = threading.Lock()
        self._preview: tuple[float, str, str] | None = None  # when, of which job, base64

    def of(self, client: str) -> list[Open]:
        """The client's open requests, the one that is drawn first."""
        with self.lock:
            return [each for each in self.requests if each.client == client]

    def interrupt(self, client: str) -> None:
        """Everything that the client asked for ends with what there is."""
        for request in self.of(client):
            request.stopped = True
            for job in request.jobs:
                self.worker.cancel(job)

    def skip(self, client: str) -> None:
        """The client's picture that is drawn now."""
        for request in self.of(client):
            for job in request.jobs:
                if job.state not in (QUEUED, *ENDED):
                    self.worker.cancel(job)

    async def preview(self, job: Job) -> str | None:
        """What the network believes of a job's picture, as base64 of a PNG; one now and then."""
        last = job.kept.get("last")
        if last is None:
            return None
        there = self._preview  # meanwhile another client's job may be asked after
        if there is None or there[1] != job.id or time.monotonic() - there[0] > PREVIEW:
            self._preview = there = (time.monotonic(), job.id, "")  # nobody else decodes the same
            picture = await decoded(self.worker, job)
            if picture is not None:
                data = await run_in_threadpool(interrupted_file, picture)
                text = base64.b64encode(data).decode("ascii")
                self._preview = there = (time.monotonic(), job.id, text)
        return there[2] or None


def router(worker: Worker, options: ServerOptions) -> APIRouter:
    """The routes."""
    routes, desk = APIRouter(prefix="/sdapi/v1"), Desk(worker)

    @routes.post("/txt2img")
    async def txt2img(asked: TextToImage, request: Request) -> Response:
        """Pictures of a prompt."""
        return await _drawn(desk, options, asked, request)

    @routes.post("/img2img")
    async def img2img(asked: ImageToImage, request: Request) -> Response:
        """Pictures from a picture."""
        return await _drawn(desk, options, asked, request)

    @routes.get("/progress")
    async def progress(request: Request, skip_current_image: bool = False) -> Response:
        """How far the requests from this address are."""
        return Json(await _progress(desk, _client(request), not skip_current_image))

    @routes.post("/interrupt")
    async def interrupt(request: Request) -> Response:
        """End them with what there is."""
        desk.interrupt(_client(request))
        return Json({})

    @routes.post("/skip")
    async def skip(request: Request) -> Response:
        """Leave the picture that is drawn, and go on with the next."""
        desk.skip(_client(request))
        return Json({})

    @routes.get("/options")
    async def get_options() -> Response:
        """What is chosen where a request does not say."""
        return Json(lists.settings(desk.preferences))

    @routes.post("/options")
    async def set_options(given: dict[str, Any]) -> Response:
        """Choose it; what is not known is ignored, since clients send all of it back."""
        with desk.lock:
            desk.preferences, _ = preferred(given, worker.models, desk.preferences)
        return Json(None)

    @routes.post("/png-info")
    async def png_info(asked: PngInfo) -> Response:
        """What a picture says of itself."""
        return Json(await run_in_threadpool(read_info, asked.image, worker.limits))

    for name, content in lists.LISTS.items():
        routes.add_api_route(f"/{name}", _told(content, worker), methods=["GET"], name=name)
    for name in ("refresh-checkpoints", "refresh-loras", "refresh-vae", "refresh-embeddings"):
        routes.add_api_route(f"/{name}", _nothing, methods=["POST"], name=name)
    return routes


def _told(content: Any, worker: Worker) -> Any:
    async def told() -> Response:
        return Json(await run_in_threadpool(content, worker))

    return told


async def _nothing() -> Response:
    """The lists are made at start."""
    return Json(None)


def _client(request: Request) -> str:
    return request.client.host if request.client is not None else ""


# --- drawing -------------------------------------------------------------------------------------


async def _drawn(
    desk: Desk, options: ServerOptions, asked: TextToImage | ImageToImage, request: Request
) -> Response:
    worker = desk.worker
    how, jobs = await run_in_threadpool(_begun, desk, options, asked)
    opened = Open(_client(request), jobs)
    with desk.lock:
        desk.requests.append(opened)
    try:
        await _ended(opened, request)
        done, pictures, cut = await _pictures(worker, opened)
        if how.region is not None:
            put_back = how.region.put_back
            pictures = [await run_in_threadpool(put_back, picture) for picture in pictures]
            done = [replace(one, picture=picture) for one, picture in zip(done, pictures)]  # noqa: B905
        files = [await encoded(worker, one, options) for one in done]
        rest = pictures[len(done) :]
        files += [await run_in_threadpool(interrupted_file, picture) for picture in rest]
        told = {line: None for job in jobs for e in job.events if e.kind == "note"
                for line in [e.data["line"]]}  # fmt: skip
        notes = [*how.notes, *told, *(["interrupted before its last step"] * cut)]
        info = info_of(asked, how, done, cut, notes)
    finally:
        with desk.lock:
            desk.requests.remove(opened)
        for job in jobs:
            worker.cancel(job)
            worker.forget(job)
    images = [base64.b64encode(data).decode("ascii") for data in files]
    sent = [] if asked.send_images is False else images
    return Json({"images": sent, "parameters": _echo(asked), "info": info})


def _begun(
    desk: Desk, options: ServerOptions, asked: TextToImage | ImageToImage
) -> tuple[Wanted, list[Job]]:
    """A job for each picture, or for none of them. Raises Refused, InputError."""
    worker, limits = desk.worker, desk.worker.limits
    how = wanted(asked, worker.models, limits, desk.preferences, options.lenient)
    each = [read(fields, worker.models, limits) for fields in how.fields]
    jobs: list[Job] = []
    try:
        for one in each:
            jobs.append(drawings.submit(worker, one, _kept, "a1111"))
    except Exception:
        for job in jobs:
            worker.cancel(job)
            worker.forget(job)
        raise
    if how.preferences is not None:
        with desk.lock:
            desk.preferences = how.preferences
    return how, jobs


def _kept(job: Job, run: Run, step: Step, rows: slice) -> None:
    """Every step's estimate, for the progress and for what is interrupted."""
    job.kept["last"] = (run, step, rows)


async def _ended(opened: Open, request: Request) -> None:
    """Until all have ended. Raises Unready where the client has gone, and a job's error."""
    for job in opened.jobs:
        if await gone(job, request):
            raise Unready("its client has gone")
        if job.state == FAILED and job.error is not None:
            raise job.error


async def _pictures(worker: Worker, opened: Open) -> tuple[list[Drawn], list[Image], int]:
    """What was drawn; the pictures of it, and behind them what was interrupted, as it stood; and
    how many of these there are."""
    done = [one for job in opened.jobs if job.state == DONE for one in job.result]
    pictures = [one.shown for one in done]
    halted = [job for job in opened.jobs if job.state == CANCELLED and "last" in job.kept]
    cut = [picture for job in halted if (picture := await decoded(worker, job)) is not None]
    if not pictures and not cut and not opened.stopped:
        raise Unready("it was cancelled", retry_after=1)
    return done, [*pictures, *cut], len(cut)


async def decoded(worker: Worker, job: Job) -> Image | None:
    """What the network believes of a job's picture."""
    run, step, rows = job.kept["last"]

    def work(networks: Networks, jobs: Sequence[Job]) -> None:
        jobs[0].result = estimate(run, step, rows.start, worker.filters)

    try:
        short = worker.submit(work, job.choice, between_steps=True)
    except Refused:
        return None
    while short.state not in ENDED:
        async for _ in short.follow():
            pass
        await asyncio.sleep(0)
    worker.forget(short)
    return short.result


def _echo(asked: TextToImage | ImageToImage) -> Mapping[str, Any]:
    """What was asked for; the pictures too where they are wanted back."""
    echo = asked.model_dump()
    given = isinstance(asked, ImageToImage) and not asked.include_init_images
    left = {"init_images": None, "mask": None} if given else {}
    return {**echo, **left, "alwayson_scripts": {}, "override_settings": None, "styles": None}


async def _progress(desk: Desk, client: str, with_picture: bool) -> dict[str, Any]:
    requests = desk.of(client)
    if not requests:
        return lists.progress()
    now = next((r for r in requests if any(j.state not in (QUEUED, *ENDED) for j in r.jobs)),
               requests[0])  # fmt: skip
    job = next((j for j in now.jobs if j.state not in ENDED), now.jobs[-1])
    steps = [e.data for e in job.events if e.kind == "step"]
    last = steps[-1] if steps else {"done": 0, "total": 0}
    share = last["done"] / last["total"] if last["total"] else 0.0
    whole = min(1.0, (now.done + share * (job.state not in ENDED)) / len(now.jobs))
    seconds = time.time() - now.created
    return lists.progress(
        whole,
        seconds * (1 - whole) / whole if whole else 0.0,
        count=len(now.jobs),
        number=now.done,
        step=last["done"],
        steps=last["total"],
        stopped=now.stopped,
        picture=await desk.preview(job) if with_picture else None,
    )
