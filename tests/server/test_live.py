"""A server over real sockets: clients that go away, a queue that is full, an end by a signal."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdcore.server.limits import Limits
from sdcore.server.models import Models
from sdcore.server.worker import Worker
from tests.server.conftest import live

SMALL: dict[str, Any] = {"num_inference_steps": 2, "width": 64, "height": 64}


def post(port: int, path: str, body: Any, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers and JSON of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    sent = {"content-type": "application/json", **headers}
    connection.request("POST", path, json.dumps(body), sent)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, json.loads(content)


def begun(port: int, path: str, body: Any) -> socket.socket:
    """A connection whose request was sent, and whose answer is not waited for."""
    raw = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(raw)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(head.encode() + raw)
    return connection


def until(true: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.usefixtures("slow_steps")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "a", "num_inference_steps": 150, "width": 64, "height": 64}),
        ("/v1/images/generations", {"prompt": "a", "size": "64x64", "num_inference_steps": 150}),
        ("/v1/images/generations", {"prompt": "a", "size": "64x64", "num_inference_steps": 150,
                                    "stream": True}),
        ("/sdapi/v1/txt2img", {"prompt": "a", "width": 64, "height": 64, "steps": 150}),
    ],
    ids=["generate", "openai", "openai stream", "a1111"],
)  # fmt: skip
def test_a_client_that_goes_away_frees_the_worker(
    worker: Worker, path: str, body: dict[str, Any]
) -> None:
    with live(worker) as port:
        connection = begun(port, path, body)
        until(lambda: worker.running)
        job = worker.running[0]
        until(lambda: sum(e.kind == "step" for e in job.events) >= 3)
        connection.close()
        until(lambda: job.cancelled)
        told = len(job.events)
        until(lambda: not worker.running)
        steps = sum(e.kind == "step" for e in job.events[told:])
        assert steps <= 1
        assert job.state == "cancelled"
        assert post(port, "/generate", {"prompt": "a", **SMALL})[0] == 200


@pytest.mark.usefixtures("slow_steps")
def test_a_client_that_goes_away_leaves_the_queue_too(worker: Worker) -> None:
    long = {"prompt": "a", "num_inference_steps": 150, "width": 64, "height": 64}
    with live(worker) as port:
        first, second = begun(port, "/generate", long), begun(port, "/generate", long)
        until(lambda: worker.running and worker.queued)
        second.close()
        until(lambda: not worker.queued)
        assert worker.running
        first.close()
        until(lambda: not worker.running)


@pytest.mark.usefixtures("slow_steps")
def test_a_full_queue_is_told_at_once(tiny_models: Models) -> None:
    worker = Worker(tiny_models, Limits(work=2))
    with live(worker) as port:
        long = {"prompt": "a", "num_inference_steps": 150, "width": 64, "height": 64}
        first = begun(port, "/generate", long)
        until(lambda: worker.running)
        status, headers, body = post(port, "/generate", long)
        assert status == 429
        assert worker.running  # it was not waited for
        assert int(headers["retry-after"]) >= 1
        assert "queue is full" in body["detail"]
        status, _, body = post(port, "/v1/images/generations", {"prompt": "a", "size": "1024x1024"})
        assert (status, body["error"]["param"]) == (400, None)  # more than is ever taken
        first.close()
        until(lambda: not worker.running)


def test_a_crash_in_one_request_leaves_the_next(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from sdcore.server import drawings

    whole = drawings.draw

    def broken(networks: Any, settings: Any, *args: Any, **more: Any) -> Any:
        if settings[0].prompt == "my secret":
            raise RuntimeError("cannot draw my secret")
        return whole(networks, settings, *args, **more)

    monkeypatch.setattr(drawings, "draw", broken)
    with live(worker) as port:
        status, _, body = post(port, "/generate", {"prompt": "my secret", **SMALL})
        assert status == 500
        assert "RuntimeError" in body["detail"]
        assert post(port, "/generate", {"prompt": "a", **SMALL})[0] == 200
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_requests_at_once_are_all_answered(worker: Worker) -> None:
    answers: list[int] = []

    def ask(n: int) -> None:
        body = {"prompt": f"house {n}", "seed": n, **SMALL}
        answers.append(post(port, "/generate", body)[0])

    with live(worker) as port:
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(240)
    assert answers == [200] * 16


# --- the command ---------------------------------------------------------------------------------


class Command:
    """`sdcore serve` in a process of its own."""

    def __init__(self, *args: str, **environment: str) -> None:
        command = [sys.executable, "-m", "sdcore", "serve", "--port", "0", *args]
        told = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=told, cwd=Path(__file__).parents[2]
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://\S+?:(\d+)/", line)
        assert found, line + self.process.stderr.read()
        self.port = int(found[1])

    def end(self, seconds: float = 240) -> tuple[int, str]:
        """Status, and what it said."""
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said


@pytest.mark.weights
@pytest.mark.parametrize(("grace", "steps"), [("200", 40), ("0", 150)])
def test_told_to_stop_it_finishes_within_the_grace_and_ends_with_0(grace: str, steps: int) -> None:
    command = Command("--grace", grace)
    post(command.port, "/generate", {"prompt": "a", **SMALL})  # loads the model
    answers: list[Any] = []
    body = {"prompt": "a secret", **SMALL, "num_inference_steps": steps}
    thread = threading.Thread(target=lambda: answers.append(post(command.port, "/generate", body)))
    thread.start()
    until(lambda: _running(command.port) or answers)
    command.process.send_signal(signal.SIGTERM)
    if grace != "0":  # it still answers, and refuses
        until(lambda: _refuses(command.port) or answers)
    thread.join(240)
    status, said = command.end()
    assert status == 0
    assert answers[0][0] == (200 if grace != "0" else 503)
    assert "secret" not in said
    assert "Traceback" not in said


def _running(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    connection.request("GET", "/metrics")
    return "sdcore_requests_running 1.0" in connection.getresponse().read().decode()


def _refuses(port: int) -> bool:
    try:
        return post(port, "/generate", {"prompt": "a", **SMALL})[0] == 503
    except OSError:
        return True


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--host", "0.0.0.0"], "SDCORE_API_KEY"),
        (["--host", "::"], "SDCORE_API_KEY"),
        (["--cors", "*"], "origin"),
        (["--cors", "http://a.example/path"], "origin"),
        (["--models", "nowhere"], "nowhere"),
        (["--models", "."], "holds no model"),
        (["--models", "a/b"], "sdcore download a/b"),
        (["--lora-dir", "nowhere"], "no folder"),
        (["--key-file", "nowhere"], "nowhere"),
        (["--batch", "0"], "at least 1"),
    ],
)
def test_what_is_not_safe_or_not_there_is_one_line(
    command: Any, monkeypatch: pytest.MonkeyPatch, args: list[str], why: str
) -> None:
    monkeypatch.delenv("SDCORE_API_KEY", raising=False)
    monkeypatch.setattr("sdcore.server.serve.listen", lambda *_: pytest.fail("it listens"))
    status, path, err = command("serve", "--port", "0", *args)
    assert (status, path) == (2, None)
    assert why in err
    assert err.startswith("sdcore: ")
    assert err.count("\n") == 1


def test_a_port_that_is_taken_is_one_line(command: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, _, err = command("serve", "--port", str(taken.getsockname()[1]))
    assert status == 2
    assert "cannot listen on 127.0.0.1" in err
