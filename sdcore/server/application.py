"""The application: the faces over one worker, behind the gate."""

# pyright: reportMissingImports=false

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from sdcore.errors import InputError, one_line
from sdcore.filters import open_filters
from sdcore.server import (
    choices,
    generate,
    metrics,
    native,
    openai_images,
    page_files,
)
from sdcore.server.a1111 import routes as a1111
from sdcore.server.answers import refusal
from sdcore.server.models import Models, listed_files, listed_models
from sdcore.server.options import ServerOptions, of_environment
from sdcore.server.refusals import Refused
from sdcore.server.safety import Gate
from sdcore.server.worker import Worker
from sdcore.version import VERSION

log = logging.getLogger("sdcore.server")


def create_app(worker: Worker, options: ServerOptions | None = None, grace: float = 0.0) -> FastAPI:
    """The server's application. `worker` is started with it, and stopped.

    grace: seconds for what was begun, at the end.
    """
    options = ServerOptions() if options is None else options

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await run_in_threadpool(worker.stop, grace)

    # The usual pages of documentation are made of another host's scripts; the schema is here.
    app = FastAPI(title="sdcore", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.bare = worker.models.bare
    app.include_router(generate.router(worker, options))
    app.include_router(openai_images.router(worker, options))
    app.include_router(a1111.router(worker, options))
    app.include_router(metrics.router(worker))
    app.include_router(native.router(worker, options))
    app.include_router(choices.router(worker))
    app.include_router(page_files.router())
    for kind in (InputError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answered)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=options.limits.body)
    if options.cors:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(options.cors),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "x-api-key", "last-event-id"],
        )  # fmt: skip
    app.add_middleware(Gate, options=options)
    return app


async def answered(request: Request, error: Any) -> Response:
    """What a request is answered that could not be followed. Nothing of its body is repeated."""
    path = request.url.path
    if isinstance(error, InputError):
        line = request.app.state.bare(str(error))
        if isinstance(error, Refused):
            return refusal(path, error.status, line, error.param, error.retry_after)
        return refusal(path, 422, line)
    if isinstance(error, RequestValidationError):
        found = [{name: _plain(each[name]) for name in ("loc", "msg", "type")}
                 for each in error.errors()]  # fmt: skip
        first = found[0]
        where = [str(part) for part in first["loc"] if part != "body"]
        if first["type"] == "json_invalid":  # a place in the text, and no field
            where = []
        return refusal(path, 422, f"{'.'.join(where) or 'body'}: {first['msg']}",
                       param=where[0] if where else None, errors=found)  # fmt: skip
    assert isinstance(error, HTTPException)
    return refusal(path, error.status_code, one_line(str(error.detail)))


def _plain(value: Any) -> Any:
    """A part of an error that JSON can write, and that is short."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value[:20]]
    return value if isinstance(value, int) else one_line(str(value))[:200]


def made_worker(options: ServerOptions) -> Worker:
    """The worker of these options, its lists made. Raises InputError."""
    from sdcore.checkpoints.find import bundled_adapters

    models = Models(
        listed_models(options.models, log.warning),
        listed_files(options.lora_dir, bundled_adapters()),
        listed_files(options.embedding_dir, {}),
        options.source,
        options.loaded,
        options.hides_places,
    )
    filters = open_filters(options.filter, options.safety, options.safety_action)
    return Worker(models, options.limits, filters)


def from_environment() -> FastAPI:
    """The application as the environment sets it up: `sdcore.server:app`."""
    options = of_environment()
    return create_app(made_worker(options), options, options.grace)
