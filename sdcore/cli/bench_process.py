"""An engine in a process of its own, so that the memory that it takes is its own too."""

from __future__ import annotations

import multiprocessing
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from sdcore.errors import InputError

try:
    import resource
except ImportError:  # Windows
    resource = None
KILO = 1 if sys.platform == "darwin" else 1024  # bytes in the unit of ru_maxrss


@dataclass(frozen=True)
class Asked:
    """What is timed."""

    model: str
    device: str | None
    dtype: str | None
    width: int | None
    height: int | None
    batch: int


class EngineProcess:
    """Answers what it is asked for: "about", a work of `sdcore.engine.bench.works`, "peak"."""

    def __init__(self, asked: Asked, engine: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_answer, args=(other, asked, engine), daemon=True)
        self.process.start()
        other.close()
        self.engine = engine

    def ask(self, what: str) -> Any:
        """Raises InputError for what the engine finds wrong, or where its process ends."""
        try:
            self.connection.send(what)
            wrong, answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise InputError(
                f"the process of the engine {self.engine} ended ({self.process.exitcode}): out of "
                "memory, perhaps; each engine needs a model's room of its own"
            ) from None
        if wrong is not None:
            raise InputError(wrong)
        return answer

    def end(self) -> None:
        self.connection.close()
        self.process.join()


def _answer(connection: Connection, asked: Asked, engine: str) -> None:
    """The process: every question answered by (what is wrong or None, the answer)."""
    from sdcore.allocator import tune_allocator

    tune_allocator()
    with suppress(EOFError, OSError, KeyboardInterrupt):  # nobody asks any more
        try:
            answers = None
            while True:
                what = connection.recv()
                answers = _Answers(asked, engine) if answers is None else answers
                connection.send((None, answers(what)))
        except (EOFError, OSError):
            raise
        except Exception as error:  # told by the process that asks, in a line
            line = " ".join(str(error).split())
            mine = isinstance(error, InputError)
            connection.send((line if mine else f"the engine {engine} failed: {line:.300}", None))


class _Answers:
    def __init__(self, asked: Asked, engine: str) -> None:
        from sdcore.engine.bench import works
        from sdcore.loading import load

        self.sd = load(asked.model, asked.device, asked.dtype)
        run = self.sd.prepare("", width=asked.width, height=asked.height, steps=1)
        self.settings = run.settings[0]
        size = (self.settings.height, self.settings.width)
        self.works = works(self.sd.unet, self.sd.vae, size, engine, asked.batch)

    def __call__(self, what: str) -> Any:
        from sdcore.engine.bench import timed

        if what == "about":
            return self._about()
        return self._peak() if what == "peak" else timed(self.works[what])

    def _about(self) -> dict[str, Any]:
        import torch

        from sdcore.engine import choose

        gpu = self.sd.device.type == "cuda"
        return {
            "settings": asdict(self.settings),
            "works": list(self.works),
            "why": choose(self.sd.unet, "auto").why,
            "device": torch.cuda.get_device_name(self.sd.device) if gpu else None,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def _peak(self) -> int | None:
        """Bytes: of the device, or of the whole process; None where the system does not tell."""
        import torch

        if self.sd.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.sd.device)
        if resource is None:
            return None
        return KILO * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
