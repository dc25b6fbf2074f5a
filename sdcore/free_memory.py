"""How much memory may still be had, what running out of it looks like, and how to give some back.

The machine's memory is not the only bound: a process may have one of its own (RLIMIT_AS, which
`ulimit -v` sets, RLIMIT_DATA), and so may the container that it runs in (cgroup v1 and v2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None

# How oneDNN and the C++ library say it.
_SAID = re.compile(
    r"allocate memory|bad_alloc|failed to map segment|start new thread"
    r"|could not (create|execute) a (primitive|memory)(?!\w| descriptor)"
)


def available(device: torch.device) -> int | None:
    """Bytes that may still be had on a device; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    bounds = [*_machine(), *_process(), *_container()]
    return max(0, min(bounds)) if bounds else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU's allocator, could not give what was asked for."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and _SAID.search(str(error)) is not None
    )


def give_back() -> None:
    """Return to the system what has been freed.

    The C library keeps freed pieces of up to 32 MB for later, and what is small and still in use
    among them keeps them apart: over hundreds of pictures gigabytes.
    """
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        _c_library().malloc_trim(0)


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _machine(root: Path = Path("/")) -> Iterator[int]:
    with contextlib.suppress(OSError, KeyError, ValueError):
        text = (root / "proc/meminfo").read_text()
        yield _fields(text)["MemAvailable"] * 1024


def _process(root: Path = Path("/")) -> Iterator[int]:
    """What is left of the address space and of the writable part of it."""
    if resource is None:
        return
    with contextlib.suppress(OSError, KeyError, ValueError):
        used = _fields((root / "proc/self/status").read_text())
        for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
            most, _ = resource.getrlimit(limit)
            if most != resource.RLIM_INFINITY:
                yield most - used[name] * 1024


def _container(root: Path = Path("/")) -> Iterator[int]:
    """What is left in each control group around this process. File cache counts as free."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    groups = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, most, used, cached = groups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, cached = groups / "memory", "total_inactive_file"
            most, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # A container may see its own group as the top, by whatever path the system knows it.
        here = top / path.lstrip("/")
        for folder in {top, here, *(up for up in here.parents if up.is_relative_to(top))}:
            with contextlib.suppress(OSError, ValueError, KeyError):  # "max", or no such group
                limit = int((folder / most).read_text())
                cache = _fields((folder / "memory.stat").read_text())[cached]
                yield limit - int((folder / used).read_text()) + cache


def _fields(text: str) -> dict[str, int]:
    """The lines "name: number unit" or "name number" of a file of the system's."""
    found = re.findall(r"^(\w+):?\s+(\d+)", text, re.MULTILINE)
    return {name: int(number) for name, number in found}
