"""Reading ahead asks for the weights that will be loaded, and for nothing else."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdcore.checkpoints import Component, read_ahead
from sdcore.checkpoints.parameter_names import spelt
from sdcore.checkpoints.prefetch import STEP
from sdcore.checkpoints.read import read_header
from sdcore.errors import InputError

Asked = list[tuple[int, int]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    calls: Asked = []

    def advise(_: int, begin: int, count: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        calls.append((begin, count))

    monkeypatch.setattr(os, "posix_fadvise", advise, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    return calls


@pytest.fixture
def component(tmp_path: Path) -> Component:
    path = tmp_path / "w.safetensors"
    save_file({k: torch.ones(STEP // 4 + 5) for k in ("a", "b", "unused")}, path)
    rename = spelt(lambda key: None if key == "unused" else key)
    return Component("vae", {}, path, (path,), rename)


def wait(components: list[Component], limit: int) -> None:
    thread = read_ahead(components, limit)
    assert thread is not None
    thread.join()


def test_every_byte_that_is_needed_is_asked_for_once(asked: Asked, component: Component) -> None:
    wait([component], 1 << 30)
    header = read_header(component.files[0])
    wanted = {b for k in ("a", "b") for b in range(header[k].begin, header[k].begin + STEP + 20)}
    bytes_asked = [b for begin, count in asked for b in range(begin, begin + count)]
    assert set(bytes_asked) == wanted
    assert len(bytes_asked) == len(wanted)
    assert max(count for _, count in asked) <= STEP


@pytest.mark.parametrize("limit", [0, STEP + 30])
def test_no_more_than_the_limit(asked: Asked, component: Component, limit: int) -> None:
    wait([component, component], limit)
    assert sum(count for _, count in asked) == limit


def test_a_file_that_goes_is_left_to_who_loads_it(
    asked: Asked, component: Component, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "posix_fadvise", fail)
    wait([component], 1 << 30)
    assert not asked


def test_a_broken_file_is_told_at_once(component: Component) -> None:
    path = component.files[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        read_ahead([component], 1 << 30)


def test_systems_that_cannot_be_asked(
    component: Component, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert read_ahead([component], 1 << 30) is None
