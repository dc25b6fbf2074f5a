"""Python's garbage collector, paused where what is made stays.

torch and a model are some hundred thousand objects. While they come into being the collector goes
through all of them again and again and finds nothing to free: a tenth of the time to a model that
is ready.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 100_000  # new objects: it takes 10 ms to go through them


@contextmanager
def collection_paused() -> Iterator[None]:
    """No collection inside, until the first of several threads that pause it is through. Where much
    was made, it counts as old afterwards."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # That nobody has put objects aside, so that none come back, is known by counting them all.
        if gc.get_count()[0] > MANY and gc.get_freeze_count() == 0:
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        if before:
            gc.enable()


def put_aside() -> None:
    """No collection goes through what there is by now: modules and networks stay to the end."""
    gc.freeze()
    atexit.unregister(_put_back)
    atexit.register(_put_back)


def _put_back() -> None:
    """For Triton, which counts at the end what is left of it and says on stderr that it leaked."""
    if "triton" in sys.modules:
        gc.unfreeze()
