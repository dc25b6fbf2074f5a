"""The garbage collector's pause: it ends as it began, and what was made is not looked through."""

import atexit
import gc
import sys
from collections.abc import Callable, Iterator

import pytest

from sdcore import garbage
from sdcore.garbage import collection_paused


@pytest.fixture(autouse=True)
def nothing_is_put_aside() -> Iterator[None]:
    """As in a process of its own; what the tests have put aside goes back there."""
    gc.unfreeze()
    yield
    gc.freeze()


class Node:
    """Garbage that only a collection frees."""

    def __init__(self) -> None:
        self.itself = self


def nodes(generation: int | None = None) -> int:
    return sum(type(each) is Node for each in gc.get_objects(generation))


def test_nothing_is_collected_inside_and_garbage_is_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(garbage, "MANY", 0)
    with collection_paused():
        assert not gc.isenabled()
        Node()
        assert nodes(generation=0) == 1
    assert gc.isenabled()
    assert (nodes(generation=0), nodes(generation=2)) == (0, 1)
    gc.collect()
    assert nodes() == 0


def test_it_leaves_the_collector_as_it_was() -> None:
    gc.disable()
    try:
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(ValueError, match="inside"), collection_paused():
        raise ValueError("inside")
    assert gc.isenabled()


def test_a_few_objects_are_new_as_ever() -> None:
    gc.collect()
    gc.disable()
    try:
        with collection_paused():
            Node()
        assert (nodes(generation=0), nodes(generation=2)) == (1, 0)
    finally:
        gc.enable()


def test_objects_that_were_put_aside_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "MANY", 0)
    gc.freeze()
    try:
        count = gc.get_freeze_count()
        with collection_paused():
            pass
        assert gc.get_freeze_count() > count / 2  # but for what nobody holds any more
    finally:
        gc.unfreeze()


def test_triton_finds_all_that_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", ends.append)
    monkeypatch.setattr(atexit, "unregister", lambda end: None)
    garbage.put_aside()
    assert gc.get_freeze_count() > 0
    monkeypatch.setitem(sys.modules, "triton", garbage)
    ends[0]()
    assert gc.get_freeze_count() == 0
