"""Python's garbage collector, paused where what is made stays.

torch and a model are some hundred thousand objects. While they come into being the collector goes
through all of them again and again and finds nothing to free: a tenth of the time to a model that
is ready.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 100_000  # new objects: it takes 10 ms to go through them


@contextmanager
def collection_paused() -> Iterator[None]:
    """No collection inside, in any thread. Where much was made, it counts as old afterwards."""
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
