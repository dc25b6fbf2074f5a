"""Garbled inputs one after another in a process of their own, which may hang, crash or swell."""

import io
import os
import random
import re
import resource
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import mkdtemp

from sdcore.cli import main
from tests.fuzz.kinds import Kind

SECONDS = 60  # for one input: all but the hanging ones take less than one
ROOM = 3 << 30  # bytes of address space beyond what the process begins with
SWELLS = 1 << 20  # KiB that an input of a few kilobytes may take
COUNTS: Counter[str] = Counter()  # "inputs", and of findings what they were
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Finding:
    """An input that misbehaved: `kind` and `seed` make it again."""

    kind: str
    seed: int
    what: str  # "traceback", "hang", "crash", or what is wrong with the line, the files, the memory
    detail: str


def tried(kind: Kind, seeds: Iterable[int], model: Path) -> Iterator[Finding | None]:
    """For every seed what was found, None where nothing was."""
    waiting = list(seeds)
    while waiting:
        ours, theirs = get_context("fork").Pipe()
        child = get_context("fork").Process(target=_serve, args=(theirs, kind, waiting, model))
        child.start()
        theirs.close()
        while waiting:
            try:
                if not ours.poll(SECONDS):
                    raise TimeoutError
                yield ours.recv()
            except (EOFError, TimeoutError, ConnectionError) as error:
                hangs = isinstance(error, TimeoutError)
                child.kill()
                child.join()
                ended = "" if hangs else f"exit {child.exitcode}"
                yield Finding(kind.__name__, waiting.pop(0), "hang" if hangs else "crash", ended)
                break
            waiting.pop(0)
        child.join(SECONDS)
        child.kill()
        ours.close()


def _serve(pipe: Connection, kind: Kind, seeds: Iterable[int], model: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # also for what Rust and C print past Python
        os.dup2(nothing, standard)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    for seed in seeds:
        pipe.send(_trial(kind, seed, model))
    os._exit(0)


def _trial(kind: Kind, seed: int, model: Path) -> Finding | None:
    here = Path(mkdtemp(prefix="sdcore-fuzz-"))
    (here / "out").mkdir()
    os.chdir(here)
    out, err = io.StringIO(), io.StringIO()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        arguments = kind(random.Random(seed), model, here)
        status = _status(arguments, out, err)
        swollen = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        wrong = _wrong(status, out.getvalue(), err.getvalue(), here, swollen)
    finally:
        os.chdir("/")
        shutil.rmtree(here, ignore_errors=True)
    return None if wrong is None else Finding(kind.__name__, seed, *wrong)


def _status(arguments: list[str], out: io.StringIO, err: io.StringIO) -> object:
    """What the command ends with: its exit status, or the traceback of what it did not catch."""
    sys.stdin = open(os.devnull)  # noqa: SIM115
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as ended:
            return 0 if ended.code is None else ended.code
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "sdcore" in f.filename]
            return f"{type(error).__name__}: {str(error)[:150]} ({' '.join(ours[-4:])})"
    return 0


def _wrong(status: object, out: str, err: str, here: Path, swollen: int) -> tuple[str, str] | None:
    """What is wrong with how a command ended, and the evidence; None where nothing is."""
    last = (err.splitlines() or [""])[-1]
    left = [str(path.relative_to(here)) for path in (here / "out").rglob("*")]
    if isinstance(status, str):
        return "traceback", status
    if (here / "ran").exists():
        return "code ran", last
    if _STEERS.search(out + err):
        return "control bytes", ascii((out + err)[-200:])
    if swollen > SWELLS:
        return "memory", f"{swollen >> 10} MiB; {last[:200]}"
    if status == 0:
        return None
    if status != 2 or not last.startswith("sdcore: ") or len(last) > 2000:
        return "unclear", f"exit {status}, {len(last)} letters: {last[:200]}"
    return ("left behind", " ".join(left)) if left else None
