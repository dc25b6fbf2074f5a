"""sdcore's own face: runs whose steps can be seen, gone on from and set beside each other.

    POST /runs                     a request in the words of `sdcore sample`; one picture
    GET  /runs/ID/events           its steps, as server-sent events (resumed by Last-Event-ID)
    POST /runs/ID/branch           {"steps": 10, "changes": {"cfg": 3}}
    GET  /runs/ID, picture.png, image.png, mask.png, distance?to=ID
    GET  /runs/ID/steps/N/picture.png, /runs/ID/steps/N/state.safetensors
    POST /runs/ID/cancel, /runs/ID/reference;  DELETE /runs/ID

A run does not end with the page that asked for it.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Header, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from sdcore.errors import InputError
from sdcore.fitting import to_rgb
from sdcore.recipes import command, python
from sdcore.server import studies
from sdcore.server.answers import Json
from sdcore.server.jobs import DONE, ENDED, FAILED, Job
from sdcore.server.options import ServerOptions
from sdcore.server.refusals import Missing, Refused, Unready
from sdcore.server.results import encoded
from sdcore.server.sse import stream
from sdcore.server.step_events import events, step_data
from sdcore.server.studies import KEPT, VIEWS, Study, study_of
from sdcore.server.worker import Worker
from sdcore.state_file import to_bytes

if TYPE_CHECKING:
    from sdcore.networks import Networks

FOREVER = {"cache-control": "private, max-age=3600, immutable"}  # what an id names never changes
Asked = Annotated[dict[str, Any], Body()]


def router(worker: Worker, options: ServerOptions) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    def check_open() -> None:
        """Raises Refused where filters look at every picture: a step shows what they keep back."""
        if worker.filters:
            raise Refused("this server filters its pictures: it shows none of their steps")

    def find(id: str) -> tuple[Job, Study]:
        job = worker.find(id)
        return job, study_of(job)

    @routes.post("/runs", status_code=202)
    async def begin(asked: Asked) -> Any:
        """Begin a run."""
        job = await run_in_threadpool(studies.begin, worker, asked)
        return Json(summary(worker, job), 202)

    @routes.get("/runs")
    async def runs() -> Any:
        """All that are remembered, the oldest first."""
        return Json([summary(worker, job) for job in worker.jobs if KEPT in job.kept])

    @routes.get("/runs/{id}")
    async def one(id: str) -> Any:
        """A run with the numbers of its steps, its command and its Python."""
        job, study = find(id)
        return Json(await run_in_threadpool(whole, worker, job, study))

    @routes.delete("/runs/{id}")
    async def forget(id: str) -> Any:
        """Cancel it, and let go of all that is kept of it."""
        job, _ = find(id)
        worker.cancel(job)
        worker.forget(job)
        return Json({"forgotten": True})

    @routes.post("/runs/{id}/cancel")
    async def cancel(id: str) -> Any:
        """Stop it between two evaluations of the network; nothing where it has ended."""
        return Json({"cancelled": worker.cancel(find(id)[0])})

    @routes.post("/runs/{id}/branch", status_code=202)
    async def branch(id: str, asked: Asked) -> Any:
        """Go on from after so many of its steps, with some settings changed."""
        job, _ = find(id)
        new = await run_in_threadpool(
            studies.branch, worker, job, asked.get("steps"), asked.get("changes", {})
        )
        return Json(summary(worker, new), 202)

    @routes.post("/runs/{id}/reference", status_code=202)
    async def reference(id: str) -> Any:
        """The same way down in steps so small that the solver hardly errs."""
        job, _ = find(id)
        return Json(summary(worker, await run_in_threadpool(studies.reference, worker, job)), 202)

    @routes.get("/runs/{id}/distance")
    async def distance(id: str, to: Annotated[str, Query(max_length=64)]) -> Any:
        """How far x is from another run's, at the sigmas that both have."""
        return Json(studies.distances(find(id)[1], find(to)[1]))

    @routes.get("/runs/{id}/events")
    async def steps(
        id: str, last_event_id: Annotated[str | None, Header(max_length=20)] = None
    ) -> Any:
        """Its steps and what becomes of it, from the first or from behind the one named."""
        job, _ = find(id)
        after = int(last_event_id) if last_event_id and last_event_id.isdecimal() else 0
        return stream(events(job, after, views=not worker.filters))

    @routes.get("/runs/{id}/picture.png")
    async def picture(id: str) -> Any:
        """The picture that is done, with its settings."""
        job, _ = find(id)
        if job.state != DONE:
            raise Missing(f"there is no picture: the run is {job.state}")
        return _picture(await encoded(worker, job.result[0], options))

    @routes.get("/runs/{id}/{which}.png")
    async def given(id: str, which: str) -> Any:
        """The picture that it began with, or its mask, as the command reads them."""
        _, study = find(id)
        held = getattr(study.asked.request, which) if which in ("image", "mask") else None
        if held is None:
            raise Missing("there is no such picture")
        return _picture(await run_in_threadpool(_given, held, which))

    @routes.get("/runs/{id}/steps/{number}/picture.png")
    async def decoded(
        id: str, number: int, view: Annotated[str, Query(max_length=20)] = "x0"
    ) -> Any:
        """A view of a step through the VAE. It does not wait for the end of what is drawn."""
        check_open()
        job, study = find(id)
        latents = study.at(number).view(view) if view in VIEWS else None
        if latents is None:
            raise Missing(f"the views are {', '.join(VIEWS)}, where the guidance has branches")
        return _picture(await _decoded(worker, job, latents))

    @routes.get("/runs/{id}/steps/{number}/state.safetensors")
    async def state(id: str, number: int) -> Any:
        """Where it stands after a step, for `sdcore resume`."""
        check_open()
        _, study = find(id)
        kept = study.at(number)
        assert study.settings is not None
        said = worker.models.shown(study.settings).to_json()
        data = await run_in_threadpool(to_bytes, kept.step.state, [said], (), kept.sigmas)
        name = f'attachment; filename="after-{number + 1}-steps.safetensors"'
        return Response(data, media_type="application/octet-stream",
                        headers={"content-disposition": name})  # fmt: skip

    return routes


def summary(worker: Worker, job: Job) -> dict[str, Any]:
    """What a list says of a run."""
    study = study_of(job)
    settings, origin = study.settings, study.origin
    request = study.asked.request
    prompt = request.prompts if isinstance(request.prompts, str) else request.prompts[0]
    return {
        "id": job.id,
        "state": job.state,
        "position": worker.position(job),
        "created": job.created,
        "started": job.started,
        "ended": job.ended,
        "error": None if job.error is None else str(job.error),
        "model": job.choice.model,
        "prompt": prompt,
        "seed": _first(request.seeds),
        "parent": None if origin is None else origin.run,
        "taken": 0 if origin is None else origin.steps,  # steps of the parent
        "changes": {} if origin is None else dict(origin.changes),
        "reference_of": study.reference_of,
        "steps": len(study.steps),
        "nfe": study.nfe,
        "settings": None if settings is None else _plain(worker, settings),
        "pictures": [name for name in ("image", "mask") if getattr(request, name) is not None],
    }


def whole(worker: Worker, job: Job, study: Study) -> dict[str, Any]:
    """What is said of a run that is asked for by its id."""
    legs = [replace(leg, settings=worker.models.shown(leg.settings))
            for leg in study.legs(worker.models.source)]  # fmt: skip
    texts: dict[str, str | None] = {"command": None, "python": None}
    if legs:
        try:
            texts = {"command": command(legs), "python": python(legs)}
        except InputError as error:
            texts["command"] = f"# {error}"
    numbers = [step_data(study, n, views=False) for n in range(len(study.steps))]
    notes = [event.data["line"] for event in job.events if event.kind == "note"]
    return {**summary(worker, job), **texts, "notes": notes, "numbers": numbers}


def _plain(worker: Worker, settings: Any) -> dict[str, Any]:
    """The settings by name, without the digests of files."""
    said = vars(worker.models.shown(settings))
    return {name: value for name, value in said.items() if name != "digests"}


def _first(seeds: int | Sequence[int]) -> int:
    return seeds if isinstance(seeds, int) else seeds[0]


def _given(picture: Any, which: str) -> bytes:
    """As `--image` and `--mask` read it, to the same pixels."""
    seen = to_rgb(picture) if which == "image" else to_rgb(picture, "black").convert("L")
    buffer = io.BytesIO()
    seen.save(buffer, "PNG")
    return buffer.getvalue()


def _picture(data: bytes) -> Response:
    return Response(data, media_type="image/png", headers=FOREVER)


async def _decoded(worker: Worker, job: Job, latents: Any) -> bytes:
    def work(networks: Networks, jobs: Sequence[Job]) -> None:
        buffer = io.BytesIO()
        networks.decode(latents.to(networks.device))[0].save(buffer, "PNG")
        jobs[0].result = buffer.getvalue()

    return await short(worker, job.choice, work)


async def short(worker: Worker, choice: Any, work: Callable[..., None]) -> Any:
    """What short work with the networks comes to; it is done between the steps of a run."""
    job = worker.submit(work, choice, between_steps=True)
    try:
        async for _ in _ended(job):
            pass
    finally:
        worker.cancel(job)
        worker.forget(job)
    if job.state == FAILED and job.error is not None:
        raise job.error
    if job.result is None:
        raise Unready("it was cancelled", retry_after=1)
    return job.result


async def _ended(job: Job) -> AsyncIterator[None]:
    async for _ in job.follow():
        if job.state in ENDED:
            return
        yield
