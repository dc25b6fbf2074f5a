"""Reading ahead: the disk works while modules are built and weights are converted."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from sdcore.checkpoints.checkpoint import Component
from sdcore.checkpoints.pickled import is_pickled
from sdcore.checkpoints.read import read_header

# Bytes asked for at a time. Of one request Linux reads no more than the disk takes at once, which
# is 128 kB at least.
STEP = 1 << 17

Extent = tuple[int, int]  # first byte, number of bytes


def read_ahead(components: Iterable[Component], limit: int) -> threading.Thread | None:
    """Ask the system to have the components' weights in its cache soon; returns at once.

    A mapped file is read where it is touched, little by little, and each time the reader waits.
    Asked for beforehand, many parts are read at once. Nothing depends on it: what is there already
    is not read again, and a system that cannot be asked reads as the file is touched.

    Args:
        components: in the order in which they will be loaded.
        limit: bytes that are asked for at most; more than the cache can hold pushes itself out.

    Returns:
        What asks, for whoever wants to wait for it; None where the system cannot be asked (it has
        no `posix_fadvise`).

    Raises:
        InputError: files that are missing or broken.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    plan = [part for component in components for part in _parts(component)]
    thread = threading.Thread(target=_ask, args=(plan, limit), name="read-ahead", daemon=True)
    thread.start()
    return thread


def _parts(component: Component) -> Iterator[tuple[Path, list[Extent]]]:
    """Where in its files a component's weights lie."""
    for path in component.files:
        if is_pickled(path):
            yield path, [(0, path.stat().st_size)]
        else:
            infos = (info for key, info in read_header(path).items() if component.spelling(key))
            yield path, sorted((info.begin, info.nbytes) for info in infos)


def _ask(plan: Iterable[tuple[Path, list[Extent]]], limit: int) -> None:
    with suppress(OSError):  # whoever loads the file says what is wrong with it
        for path, extents in plan:
            with path.open("rb") as file:
                for first, count in extents:
                    count = min(count, limit)
                    limit -= count
                    for begin in range(first, first + count, STEP):
                        size = min(STEP, first + count - begin)
                        os.posix_fadvise(file.fileno(), begin, size, os.POSIX_FADV_WILLNEED)
