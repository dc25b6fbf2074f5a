"""How the server stands many clients at once, and what HTTP costs.

    python -m scripts.server_load                    # 100 clients for ten minutes
    python -m scripts.server_load --clients 20 --minutes 1

Each client asks for one picture after another, of sizes and steps drawn at random, by all three
faces; one in twenty goes away in the middle. Told are the answers by status, the time of an answer,
and the server's memory: through the warm-up, in which every size is drawn and every thread begins,
then from its end to the end of the load.

What HTTP costs is measured before that, of a server with nothing else to do: the same picture by
HTTP and, warm, in the way of the command line, in turns. The difference of each pair, less what
base64 takes, is what the server adds: the median of the pairs, and between the fastest of both,
which on a busy machine says more.
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

import sdcore
from sdcore.complete import complete
from sdcore.drawing import draw
from sdcore.images import to_bytes
from sdcore.request import Request, parts_of

SIZES = ((64, 64), (96, 64), (64, 96), (128, 128), (160, 96), (128, 192))
STEPS = (2, 3, 4, 6)
GONE = 0.05  # of the clients' requests, those that are not waited for
WARM = 0.3  # of the time: until what memory grows by is counted


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


@dataclass(frozen=True)
class Pair:
    """Seconds of one picture: by HTTP, drawn warm as the command line does with its PNG, and of
    base64 alone."""

    http: float
    drawing: float
    coding: float


def pairs(port: int, count: int = 40) -> list[Pair]:
    """The same picture both ways, in turns; the first two of them are not counted."""
    networks = sdcore.load("picturebook", device="cpu")
    measured = []
    for seed in range(count + 2):
        body = {"prompt": "a red house", "num_inference_steps": 2, "guidance_scale": 7.5,
                "seed": seed, "width": 128, "height": 128}  # fmt: skip
        begun = time.perf_counter()
        _, content, _ = ask(port, "/generate", body)
        http = time.perf_counter() - begun
        begun = time.perf_counter()
        own = drawn_here(networks, seed)
        drawing = time.perf_counter() - begun
        begun = time.perf_counter()
        text = base64.b64encode(own).decode()
        coding = time.perf_counter() - begun
        theirs = json.loads(content)["image_base64"]
        if pixels(theirs) != pixels(text):
            raise SystemExit("the two ways draw two pictures")
        measured.append(Pair(http, drawing, coding))
    return measured[2:]


def drawn_here(networks: sdcore.StableDiffusion, seed: int) -> bytes:
    """As `sdcore sample` draws it, to the PNG's bytes."""
    request = Request("a red house", negative="", seeds=seed, steps=2, cfg=7.5, width=128,
                      height=128)  # fmt: skip
    parts = parts_of(request, networks)
    (done,) = draw(networks, complete(request, networks, parts), parts)
    return to_bytes(done.shown, done.settings)


def pixels(text: str) -> bytes:
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB").tobytes()


def tell_pairs(measured: list[Pair]) -> None:
    rows = {
        "by HTTP": [each.http for each in measured],
        "drawn here": [each.drawing for each in measured],
        "base64": [each.coding for each in measured],
    }
    click.echo("a picture of 128 x 128 in 2 steps, one client (median, fastest):")
    for what, times in rows.items():
        click.echo(
            f"    {what:12} {1e3 * statistics.median(times):7.1f} {1e3 * min(times):7.1f} ms"
        )
    added = statistics.median(each.http - each.drawing - each.coding for each in measured)
    http, drawing, coding = (min(times) for times in rows.values())
    fastest = http - drawing - coding
    click.echo(f"    {'HTTP adds':12} {1e3 * added:7.1f} {1e3 * fastest:7.1f} ms (of the pairs, of "
               "the fastest)")  # fmt: skip


def watched(port: int, begun: float, end: float) -> list[tuple[float, float]]:
    """(seconds since the begin, MB) twenty times until the end."""
    memory = []
    for n in range(1, 20):
        time.sleep(max(0.0, begun + (end - begun) * n / 20 - time.monotonic()))
        memory.append((time.monotonic() - begun, resident(port)))
    return memory


def tell_memory(memory: list[tuple[float, float]], warm: float) -> None:
    click.echo("memory (MB): " + ", ".join(f"{mb:.0f} at {at:.0f} s" for at, mb in memory))
    (at, first), (_, last) = next(each for each in memory if each[0] >= warm), memory[-1]
    click.echo(f"memory after {at:.0f} s, the warm-up: {first:.0f} MB; at the end {last:.0f} MB "
               f"({100 * (last / first - 1):+.1f} %)")  # fmt: skip


@click.command()
@click.option("--clients", default=100, show_default=True)
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--max-work", default=8.0, show_default=True, help="Of the queue.")
@click.option("--only", type=click.Choice(["overhead", "load"]), help="One of the two.")
def main(clients: int, minutes: float, max_work: float, only: str | None) -> None:
    """Ask much of a server, and tell how it stood it."""
    sdcore.tune_allocator()  # as the command line does
    process, port = started("--max-work", str(max_work))
    try:
        if only != "load":
            tell_pairs(pairs(port))
        if only == "overhead":
            return
        told, begun = Told(), time.monotonic()
        end = begun + 60 * minutes
        threads = [threading.Thread(target=client, args=(port, n, end, told))
                   for n in range(clients)]  # fmt: skip
        for thread in threads:
            thread.start()
        memory = watched(port, begun, end)
        for thread in threads:
            thread.join()
        memory.append((time.monotonic() - begun, resident(port)))
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
    tell_memory(memory, 60 * minutes * WARM)
    click.echo(f"told to stop, it ended with status {status}")
    if failed or status:
        click.echo(f"statuses: {dict(told.statuses)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
