"""One small server for all tests of its faces, and one whose worker draws nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from sdcore.server.app import create_app
from sdcore.server.limits import Limits
from sdcore.server.models import Models
from sdcore.server.options import ServerOptions
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
