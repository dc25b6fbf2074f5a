"""A run that was stopped, written, read and gone on with is the run that never stopped."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from scripts.trajectories import our_steps
from sdcore.errors import InputError
from sdcore.sampling import Memo, State
from sdcore.schedulers import TABLE, resolve
from sdcore.state_file import KEY, FoundDraw, read

NAMES = [entry.name for entry in TABLE]


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_the_run_that_was_never_stopped(name: str, tmp_path: Path) -> None:
    """Whole trajectories, to the bit, by every solver; the noise is made anew from the seeds."""
    whole, _ = our_steps(resolve(name), 6)
    for stopped in (0, 2, 4):
        whole[stopped].state.save(tmp_path / "run.safetensors")
        state = State.load(tmp_path / "run.safetensors")
        rest = our_steps(resolve(name), 6, state=state)[0]
        assert [step.index for step in rest] == list(range(stopped + 1, 6))
        for step in rest:
            assert torch.equal(step.x_next, whole[step.index].x_next)
            assert step.draws == whole[step.index].draws


def test_branches_share_the_steps_before(tmp_path: Path) -> None:
    """Rewind: an old state is still what it was after others went on from it."""
    whole, _ = our_steps(resolve("dpmpp_2m_sde", "karras"), 6)
    whole[2].state.save(tmp_path / "run.safetensors")
    state = State.load(tmp_path / "run.safetensors")
    kept = [state.x.clone(), *(memo.value.clone() for memo in state.memory)]
    for name in ("heun", "unipc", "dpmpp_2m_sde"):
        rest = our_steps(resolve(name, "karras"), 6, state=state)[0]
    assert torch.equal(rest[-1].x_next, whole[-1].x_next)
    for value, memo in zip(kept, (state.x, *(memo.value for memo in state.memory)), strict=True):
        assert torch.equal(value, memo)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    memory = (
        Memo("x0", 2.5, torch.ones(1, 4, 2, 2), "cfg:scale=3", ("unipc", 2, 0.1)),
        Memo("eps", 1e-3, torch.zeros(1, 4, 2, 2, dtype=torch.float64)),
    )
    path = tmp_path / "run.safetensors"
    draw = FoundDraw(0.1 + 0.2, 0.0, torch.ones(1, 4, 2, 2))
    state = State(torch.randn(1, 4, 2, 2), 3, memory, 5, 0.1 + 0.2)
    state.save(path, ["{}"], [draw], (9, 1, 0.5, 0.1 + 0.2, 0))
    return path


def test_every_field_comes_back(saved: Path) -> None:
    state = State.load(saved)
    assert (state.index, state.draws, state.sigma) == (3, 5, 0.1 + 0.2)
    first, second = state.memory
    assert first[:2] + first[3:] == ("x0", 2.5, "cfg:scale=3", ("unipc", 2, 0.1))
    assert second.value.dtype == torch.float64
    held = read(saved)
    assert (held.settings, held.sigmas) == (("{}",), (9.0, 1.0, 0.5, 0.1 + 0.2, 0.0))
    assert held.noise[0][:2] == (0.1 + 0.2, 0.0)


def changed(path: Path, tensors: dict | None = None, **facts: object) -> None:
    held, old = load_file(path), json.loads(_metadata(path)[KEY])
    save_file(held | (tensors or {}), path, {KEY: json.dumps(old | facts)})


def _metadata(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


ODD = {"kind": "x0", "sigma": "2", "origin": "", "note": []}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"version": 2}, "of version 2"),
        ({"index": -1}, "its index is -1"),
        ({"draws": 1.5}, "its draws is 1.5"),
        ({"index": True}, "its index is True"),
        ({"sigma": -1.0}, "is no noise level"),
        ({"sigma": float("nan")}, "is no noise level"),
        ({"memory": 3}, "what it remembers is garbled"),
        ({"memory": []}, "holds 'memory.0', which is no part of a state"),
        ({"memory": [ODD, ODD]}, "'2' is no noise level"),
        ({"memory": [ODD | {"sigma": 1, "note": [[]]}] * 2}, "what it remembers is garbled"),
        ({"memory": [{}, {}]}, "'kind' is lacking"),
        ({"memory": [1, 2]}, "cannot be read"),
        ({"settings": ["{}", "{}"]}, "1 pictures and settings of 2"),
        ({"settings": [1]}, "its settings are garbled"),
        ({"sigmas": 3}, "its sigmas are garbled"),
        ({"sigmas": ["1"]}, "is no noise level"),
        ({"noise": []}, "not the levels of each"),
        ({"noise": [[1]]}, "the levels of its noise are garbled"),
        ({"tensors": {"x": torch.zeros(2)}}, "no latents"),
        ({"tensors": {"x": torch.zeros(1, 4, 2, 2, dtype=torch.int64)}}, "no latents"),
        ({"tensors": {"memory.0": torch.zeros(1, 4, 2, 3)}}, "beside"),
        ({"tensors": {"more": torch.zeros(1)}}, "holds 'more'"),
    ],
)
def test_what_is_no_state(saved: Path, facts: dict, why: str) -> None:
    changed(saved, **facts)
    with pytest.raises(InputError) as caught:
        State.load(saved)
    assert why in str(caught.value)
    assert saved.name in str(caught.value)


def test_what_is_no_file_of_ours(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.safetensors is missing"):
        State.load(tmp_path / "no.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"picture\.png is a picture, and no state: sdcore rerun"):
        read(tmp_path / "picture.png")
    with pytest.raises(InputError, match="holds no state"):
        State.load(tmp_path / "other.safetensors")
    data = saved.read_bytes()
    for cut in (0, 4, 100, len(data) - 1):
        saved.write_bytes(data[:cut])
        with pytest.raises(InputError):
            State.load(saved)
    with pytest.raises(InputError):
        State(torch.zeros(1, 4, 2, 2)).save(tmp_path / "no" / "run.safetensors")
