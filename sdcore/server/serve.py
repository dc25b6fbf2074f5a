"""From options to a server that runs, and ends well."""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from sdcore.errors import InputError
from sdcore.server.application import create_app, made_worker
from sdcore.server.options import ServerOptions
from sdcore.server.worker import Worker

Tell = Callable[[str], None]


class Server(uvicorn.Server):
    """Until SIGTERM or Ctrl-C: then nothing new is taken, what was begun may end within the grace,
    and the status is 0. A second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, worker: Worker, grace: float) -> None:
        super().__init__(config)
        self.worker, self.grace = worker, grace
        self.drainer: threading.Thread | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Without uvicorn's, which raises the signal once more at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit)
                  for each in (signal.SIGTERM, signal.SIGINT)}  # fmt: skip
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.drainer is not None:
            self.force_exit = self.should_exit = True
            return
        self.drainer = threading.Thread(target=self._drain, name="sdcore-drain", daemon=True)
        self.drainer.start()

    def _drain(self) -> None:
        """Requests are still answered meanwhile: new ones by 503."""
        self.worker.stop(self.grace)
        self.should_exit = True


def serve(options: ServerOptions, tell: Tell) -> int:
    """Run until it is told to stop; the exit status. Raises InputError, OSError."""
    worker = made_worker(options)
    app = create_app(worker, options)
    config = uvicorn.Config(
        app, host=options.host, port=options.port, log_level="warning", access_log=False,
        server_header=False, timeout_graceful_shutdown=5, ws="none", lifespan="on",
    )  # fmt: skip
    server = Server(config, worker, options.grace)
    listening = listen(options.host, options.port)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    tell(f"http://{shown}:{port}/  {', '.join(worker.models.places)}")
    asyncio.run(server.serve(sockets=[listening]))
    listening.close()
    if not worker.stop():  # a step that does not end; nothing of it is wanted any more
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket there; port 0 takes any that is free. Raises InputError."""
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place, family=family)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host}, port {port}: {why}") from None
