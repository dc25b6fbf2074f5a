"""One small server for all tests of its faces, and one whose worker draws nothing."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import uvicorn
from starlette.testclient import TestClient

from sdcore.server.application import create_app
from sdcore.server.limits import Limits
from sdcore.server.models import Models
from sdcore.server.options import ServerOptions
from sdcore.server.serve import Server, listen
from sdcore.server.worker import Worker


def client_of(worker: Worker, **options: Any) -> TestClient:
    """A client of a server's application, by its name on this machine."""
    chosen = ServerOptions(limits=worker.limits, **options)
    app = create_app(worker, chosen)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture(scope="session")
def tiny_models(tiny_path: Path) -> Models:
    """The tiny model under the name "tiny", as it is written and once more as "other"."""
    models = Models({"tiny": str(tiny_path), "other": str(tiny_path)}, source={"device": "cpu"})
    models.networks(models.choice())  # in memory for all that come
    return models


@pytest.fixture
def worker(tiny_models: Models) -> Iterator[Worker]:
    """A worker with the tiny model in memory."""
    worker = Worker(tiny_models, Limits())
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def client(worker: Worker) -> Iterator[TestClient]:
    with client_of(worker) as client:
        yield client


@contextmanager
def live(worker: Worker, at: int = 0, **options: Any) -> Iterator[int]:
    """A server that listens to this machine, on port `at`, or on the one that comes."""
    app = create_app(worker, ServerOptions(limits=worker.limits, **options))
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2)
    server = Server(config, worker, grace=0)
    listening = listen("127.0.0.1", at)
    run = asyncio.run
    thread = threading.Thread(target=lambda: run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(120)
        listening.close()
        assert not thread.is_alive()


@pytest.fixture
def port(worker: Worker) -> Iterator[int]:
    """Of a live server with the tiny model."""
    with live(worker) as port:
        yield port


@dataclass
class Pace:
    seconds: float


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> Pace:
    """What every step waits more: so long that a run is still there when it has been looked at."""
    from sdcore.server import drawings

    inner, pace = drawings._Watching.check, Pace(0.05)

    def waiting(self: Any) -> None:
        time.sleep(pace.seconds)
        inner(self)

    monkeypatch.setattr(drawings._Watching, "check", waiting)
    return pace
