"""The `sdcore` command: parse, call, print."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

from sdcore.allocator import tune_allocator
from sdcore.errors import InputError, one_line

_STOPPED = "stopped"


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line. What the user can mend is one line on stderr and exit status 2."""
    # Before torch is loaded: an OpenMP thread that waits spins by default, and where something
    # else wants the core a picture of 0.3 s then takes up to minutes. Waiting asleep costs nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    tune_allocator()
    _open_streams()
    try:
        with _interruptible():
            from sdcore.cli.commands import run

            sys.exit(run(args))
    except InputError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt as error:
        named = bool(error.args and error.args[0])  # how many pictures
        _fail(f"{_STOPPED}; the pictures named above are whole" if named else _STOPPED, 130)
    except BrokenPipeError:  # `sdcore ... | head`: nobody reads on, which is no mistake
        _silence(sys.stdout)
        sys.exit(141)
    except OSError as error:  # the output is full, a disk fails
        place = "" if error.filename is None else f"{error.filename}: "
        _fail(f"{place}{error.strerror or error}", 2)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt; while a module is imported, the end.

    Libraries that are interrupted while they are imported go on, or end in an error of theirs.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                os.write(2, f"sdcore: {_STOPPED}\n".encode())
                os._exit(130)
            frame = frame.f_back
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    ours = current_thread() is main_thread() and before is signal.default_int_handler
    if not ours:  # ignored (nohup, &), or somebody else's
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _open_streams() -> None:
    """Give a stream that was closed from the start to nobody: the next file would take its place,
    and what is printed would go into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _fail(message: str, status: int) -> None:
    try:
        print(f"sdcore: {one_line(message)}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    except OSError:
        _silence(sys.stdout)
        _silence(sys.stderr)
    sys.exit(status)


def _silence(stream: object) -> None:
    """Nothing more can be written there, also not when Python ends."""
    if hasattr(stream, "fileno"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[attr-defined]
