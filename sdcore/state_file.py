"""A State as a file: where a run stands, to go on from there as if it had never stopped.

safetensors: "x" and a tensor for each thing remembered, "memory.0" the newest; "noise.0" ... where
the draws are no seed's but were found (edit-friendly inversion). In the metadata, under
"sdcore_state", JSON: index, draws, sigma, the run's sigmas, what each remembered tensor is, between
which levels each found draw leads, and the settings of every picture. Floats are written as Python
writes them, which gives back the same bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sdcore.errors import InputError
from sdcore.paths import check_folder, file_of, is_picture, path_of
from sdcore.strict_json import parse
from sdcore.writing import write_whole

KEY = "sdcore_state"
VERSION = 1
MOST_REMEMBERED = 100  # tensors; solvers remember up to 4
MOST_SIGMAS = 1_000_000


class Remembered(NamedTuple):
    """The fields of a `Memo`."""

    kind: str
    sigma: float
    value: Tensor
    origin: str
    note: tuple[str | float, ...]


class FoundDraw(NamedTuple):
    """A draw that is no seed's, and the step that it was found for."""

    sigma: float
    sigma_next: float
    value: Tensor  # [B,C,H,W]


class Held(Protocol):
    """What is written of a State."""

    @property
    def x(self) -> Tensor: ...
    @property
    def index(self) -> int: ...
    @property
    def memory(self) -> Sequence[Any]: ...
    @property
    def draws(self) -> int: ...
    @property
    def sigma(self) -> float | None: ...


class Read(NamedTuple):
    """The fields of a State, and what was written beside it."""

    x: Tensor
    index: int
    memory: tuple[Remembered, ...]
    draws: int
    sigma: float | None
    settings: tuple[str, ...]  # of each picture, as JSON
    noise: tuple[FoundDraw, ...] = ()
    sigmas: tuple[float, ...] = ()  # of the run, in which index counts; () where none were written


def write(
    path: str | Path,
    state: Held,
    settings: Sequence[str] = (),
    noise: Sequence[FoundDraw] = (),
    sigmas: Sequence[float] = (),
) -> None:
    """Whole or not at all, in place of what is there; `to_bytes` says what.

    Raises InputError where it cannot be written.
    """
    target = path_of(path)
    check_folder(target.parent)
    write_whole(target, to_bytes(state, settings, noise, sigmas))


def to_bytes(
    state: Held,
    settings: Sequence[str] = (),
    noise: Sequence[FoundDraw] = (),
    sigmas: Sequence[float] = (),
) -> bytes:
    """The file of a state.

    settings: of each picture, as JSON. noise: the draws of the loop, where they are no seed's.
    sigmas: of the run, in which the state's index counts.
    """
    tensors = {"x": state.x} | {f"memory.{i}": memo.value for i, memo in enumerate(state.memory)}
    tensors |= {f"noise.{i}": drawn.value for i, drawn in enumerate(noise)}
    facts = {
        "version": VERSION,
        "index": state.index,
        "draws": state.draws,
        "sigma": state.sigma,
        "sigmas": list(sigmas),
        "noise": [[drawn.sigma, drawn.sigma_next] for drawn in noise],
        "memory": [
            {"kind": memo.kind, "sigma": memo.sigma, "origin": memo.origin, "note": list(memo.note)}
            for memo in state.memory
        ],
        "settings": list(settings),
    }
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(whole, {KEY: json.dumps(facts)})


def read(path: str | Path) -> Read:
    """Raises InputError for a file that is missing, none of these, or garbled."""
    place = file_of(path)
    if is_picture(place):
        raise InputError(f"{place} is a picture, and no state: sdcore rerun draws it again")
    try:
        with safe_open(place, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise InputError(f"{place} holds no state: sdcore sample --state writes one")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _checked(parse(text), tensors)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{place} cannot be read: {error}") from None
    except (InputError, KeyError, TypeError, ValueError) as error:
        if str(error).startswith(str(place)):
            raise
        why = f"{error} is lacking" if isinstance(error, KeyError) else error
        raise InputError(f"{place} cannot be read: {why}") from None


def _checked(facts: Mapping[str, Any], tensors: dict[str, Tensor]) -> Read:
    if facts["version"] != VERSION:
        raise InputError(f"it is of version {facts['version']!r}, and {VERSION} is known")
    x, said, sigma = tensors.pop("x"), facts["memory"], facts["sigma"]
    if x.dim() != 4 or not x.is_floating_point() or 0 in x.shape:
        raise InputError(f"x is {x.dtype} of {list(x.shape)}, and no latents [B,C,H,W]")
    if type(said) is not list or len(said) > MOST_REMEMBERED:
        raise InputError("what it remembers is garbled")
    memory = tuple(_remembered(each, tensors.pop(f"memory.{i}"), x) for i, each in enumerate(said))
    noise = _found(facts.get("noise", []), tensors, x)
    if tensors:
        raise InputError(f"it holds {min(tensors)!r}, which is no part of a state")
    settings = facts["settings"]
    if type(settings) is not list or not all(type(each) is str for each in settings):
        raise InputError("its settings are garbled")
    if settings and len(settings) != len(x):
        raise InputError(f"it has {len(x)} pictures and settings of {len(settings)}")
    counts = [_count(facts, name) for name in ("index", "draws")]
    level = None if sigma is None else _level(sigma)
    sigmas = facts.get("sigmas", [])
    if type(sigmas) is not list or len(sigmas) > MOST_SIGMAS:
        raise InputError("its sigmas are garbled")
    levels = tuple(map(_level, sigmas))
    return Read(x, counts[0], memory, counts[1], level, tuple(settings), noise, levels)


def _found(said: Any, tensors: dict[str, Tensor], x: Tensor) -> tuple[FoundDraw, ...]:
    count = sum(name.startswith("noise.") for name in tensors)
    values = [tensors.pop(f"noise.{i}") for i in range(count)]
    if any(each.shape != x.shape or not each.is_floating_point() for each in values):
        raise InputError(f"its noise is of another shape than {list(x.shape)}")
    if type(said) is not list or len(said) != count:
        raise InputError(f"it holds {count} draws, and not the levels of each: invert again")
    if any(type(pair) is not list or len(pair) != 2 for pair in said):
        raise InputError("the levels of its noise are garbled")
    return tuple(
        FoundDraw(_level(sigma), _level(sigma_next), value)
        for (sigma, sigma_next), value in zip(said, values, strict=True)
    )


def _remembered(said: Mapping[str, Any], value: Tensor, x: Tensor) -> Remembered:
    kind, origin, note = said["kind"], said["origin"], said["note"]
    if value.shape != x.shape or not value.is_floating_point():
        raise InputError(
            f"it remembers {value.dtype} of {list(value.shape)} beside {list(x.shape)}"
        )
    if type(kind) is not str or type(origin) is not str or type(note) is not list:
        raise InputError("what it remembers is garbled")
    if not all(type(each) in (str, int, float) for each in note):
        raise InputError("what it remembers is garbled")
    return Remembered(kind, _level(said["sigma"]), value, origin, tuple(note))


def _level(sigma: Any) -> float:
    if type(sigma) not in (int, float) or math.isnan(sigma) or sigma < 0:
        raise InputError(f"{sigma!r} is no noise level")
    return float(sigma)


def _count(facts: Mapping[str, Any], name: str) -> int:
    if type(facts[name]) is not int or not 0 <= facts[name] <= 10_000_000:
        raise InputError(f"its {name} is {facts[name]!r}")
    return facts[name]
