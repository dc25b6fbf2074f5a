"""How the server stands many clients at once, and what HTTP costs.

    python -m scripts.server_load                    # 100 clients for ten minutes
    python -m scripts.server_load --clients 20 --minutes 1

Each client asks for one picture after another, of sizes and steps drawn at random, by all three
faces; one in twenty goes away in the middle. Told are the answers by status, the time of an answer,
the server's memory after its first minute and at the end, and what of a picture's time by HTTP is
not drawing it: the median, and the fastest, which on a busy machine says more.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import click
from PIL import Image

from sdcore.images import KEY, to_bytes
from sdcore.settings import Settings

SIZES = ((64, 64), (96, 64), (64, 96), (128, 128), (160, 96), (128, 192))
STEPS = (2, 3, 4, 6)
GONE = 0.05  # of the clients' requests, those that are not waited for
WARM = 60.0  # seconds until memory is looked at first


@dataclass
class Told:
    """What the clients saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, status: str, seconds: float | None = None) -> None:
        with self.lock:
            self.statuses[status] += 1
            if seconds is not None:
                self.seconds.append(seconds)


def request_of(chance: random.Random) -> tuple[str, dict[str, object]]:
    """A path and a body."""
    (width, height), steps = chance.choice(SIZES), chance.choice(STEPS)
    words, seed = f"a red house {chance.randrange(1000)}", chance.randrange(2**32)
    size = {"width": width, "height": height}
    return chance.choice(
        [
            ("/generate", {"prompt": words, "num_inference_steps": steps, "seed": seed, **size}),
            ("/v1/images/generations", {"prompt": words, "num_inference_steps": steps,
             "seed": seed, "size": f"{width}x{height}"}),
            ("/sdapi/v1/txt2img", {"prompt": words, "steps": steps, "seed": seed, **size}),
        ]
    )  # fmt: skip


def ask(port: int, path: str, body: dict[str, object]) -> tuple[int, bytes, float]:
    """Status, answer, and the seconds of Retry-After."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, float(answer.headers.get("retry-after", 0))


def leave(port: int, path: str, body: dict[str, object], after: float) -> None:
    """Ask, and go away before the answer."""
    raw = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(raw)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + raw)
        time.sleep(after)


def client(port: int, number: int, end: float, told: Told) -> None:
    chance = random.Random(number)
    while time.monotonic() < end:
        path, body = request_of(chance)
        begun = time.monotonic()
        try:
            if chance.random() < GONE:
                leave(port, path, body, chance.random())
                told.add("left")
                continue
            status, _, wait = ask(port, path, body)
        except OSError as error:
            told.add(type(error).__name__)
            continue
        told.add(str(status), time.monotonic() - begun if status == 200 else None)
        if status == 429:
            time.sleep(min(wait, 30) * (0.5 + chance.random()))


def resident(port: int) -> float:
    """The server's memory in MB, as it tells it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found = re.search(r'sdcore_memory_bytes\{kind="resident"\} (\S+)', text)
    return float(found[1]) / 1e6 if found else float("nan")


def started(*args: str) -> tuple[subprocess.Popen[str], int]:
    """A server in a process of its own, with the bundled model, and its port."""
    command = [sys.executable, "-m", "sdcore", "serve", "--port", "0", *args]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = re.search(r":(\d+)/", process.stderr.readline())
    assert found, "the server does not start"
    return process, int(found[1])


def drawing_seconds(port: int) -> float:
    """What the server has spent on drawing so far, queue and answers apart."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found = re.search(r"sdcore_generation_seconds_sum (\S+)", text)
    return float(found[1]) if found else 0.0


def overhead(port: int, count: int = 40) -> tuple[list[float], list[float], list[float]]:
    """Seconds of a picture by HTTP, those of them that are not drawing, and those that writing it
    as a PNG and in base64 takes, which any answer needs."""
    whole, beside, writing = [], [], []
    body = {"prompt": "a red house", "num_inference_steps": 2, "width": 128, "height": 128}
    for seed in range(count + 2):
        before, begun = drawing_seconds(port), time.perf_counter()
        _, content, _ = ask(port, "/generate", {**body, "seed": seed})
        took = time.perf_counter() - begun
        if seed < 2:  # until the model is in memory
            continue
        whole.append(took)
        beside.append(took - (drawing_seconds(port) - before))
        picture = Image.open(io.BytesIO(base64.b64decode(json.loads(content)["image_base64"])))
        settings = Settings.from_json(picture.text[KEY])  # type: ignore[attr-defined]
        begun = time.perf_counter()
        base64.b64encode(to_bytes(picture.convert("RGB"), settings))
        writing.append(time.perf_counter() - begun)
    return whole, beside, writing


@click.command()
@click.option("--clients", default=100, show_default=True)
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--max-work", default=8.0, show_default=True, help="Of the queue.")
def main(clients: int, minutes: float, max_work: float) -> None:
    """Ask much of a server, and tell how it stood it."""
    process, port = started("--max-work", str(max_work))
    try:
        whole, beside, writing = overhead(port)
        click.echo("a picture of 128 x 128 in 2 steps, one client (median, fastest):")
        for what, times in (("by HTTP", whole), ("not drawing", beside), ("PNG, base64", writing)):
            click.echo(
                f"    {what:12} {1e3 * statistics.median(times):7.1f} {1e3 * min(times):7.1f} ms"
            )
        told, end = Told(), time.monotonic() + 60 * minutes
        threads = [threading.Thread(target=client, args=(port, n, end, told))
                   for n in range(clients)]  # fmt: skip
        for thread in threads:
            thread.start()
        time.sleep(min(WARM, 20 * minutes))
        first = resident(port)
        for thread in threads:
            thread.join()
        last = resident(port)
    finally:
        process.terminate()
    status = process.wait(60)
    seconds = sorted(told.seconds)
    share = [seconds[min(len(seconds) - 1, int(len(seconds) * p))] for p in (0.5, 0.99)]
    known = {"200", "429", "left"}
    failed = sum(count for name, count in told.statuses.items() if name not in known)
    click.echo(f"{clients} clients, {minutes:g} minutes: {told.statuses['200']} answered, "
               f"{told.statuses['429']} refused (429), {told.statuses['left']} left by their "
               f"clients, {failed} failed")  # fmt: skip
    click.echo(f"an answer took {share[0]:.1f} s (median), {share[1]:.1f} s (99 %)")
    click.echo(
        f"memory {first:.0f} MB early, {last:.0f} MB at the end ({100 * (last / first - 1):+.1f} %)"
    )
    click.echo(f"told to stop, it ended with status {status}")
    if failed or status:
        click.echo(f"statuses: {dict(told.statuses)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
