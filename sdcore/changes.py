"""What has changed since a picture was drawn that can make it another one today."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdcore.prompts import switches
from sdcore.schedulers import TABLE
from sdcore.settings import Settings

Config = Mapping[str, Any]  # the model's scheduler_config.json


@dataclass(frozen=True)
class Change:
    """A line for the pictures of earlier versions that it is about."""

    version: str  # the first in which it is so
    concerns: Callable[[Settings, Config], bool]
    line: str


def since(old: Settings, config: Config | None = None) -> list[str]:
    """A line for each change that can make `old` another picture, and no other.

    config: the model's scheduler_config.json, where it has one.
    """
    then = _numbers(old.version)
    known = {} if config is None else config
    return [c.line for c in CHANGES if then < _numbers(c.version) and c.concerns(old, known)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number[:9]) for number in re.findall(r"\d+", version)[:3])


def _edited(old: Settings, config: Config) -> bool:
    texts = [old.prompt, old.negative or ""]
    # One that comes after the last step today may have come before it then.
    counts = (old.steps, old.steps + 1, old.steps + 2)
    return old.grammar == "a1111" and any(switches(t, n) for t in texts for n in counts)


def _solver(old: Settings) -> str:
    names = [part for part in old.scheduler.split(":") if part in _NFE]
    return names[0] if names else old.scheduler


_NFE = {entry.name: entry.nfe for entry in TABLE}


def _spacing(*names: str) -> Callable[[Settings], bool]:
    """Whether the picture's spacing is one of these, as diffusers lays it."""
    return lambda old: re.split("[:,]", old.spacing.removeprefix("diffusers:"))[0] in names


def _offset(old: Settings, config: Config) -> bool:
    family = old.original_size is not None or _solver(old) == "lcm"
    return _spacing("leading")(old) and family


CHANGES = (
    Change(
        "0.4.0",
        lambda old, config: (old.engine, old.device) == ("fast", "cpu"),
        "the fast engine on a CPU rounds elsewhere now, in doublings and in bfloat16's attention: "
        "last digits may differ",
    ),
    Change(
        "0.3.0",
        lambda old, config: old.tile is not None or old.freeu is not None,
        "tile and freeu were named in pictures that the command line drew without them; they act "
        "now",
    ),
    Change(
        "0.2.0",
        _edited,
        "prompts that change midway, [a:b:n], change one step later now, as in A1111's program, "
        "and all that a solver asks within a step is told the same words",
    ),
    Change(
        "0.2.0",
        lambda old, config: _solver(old) == "dpm2_a" and "karras" in old.spacing,
        "dpm2_a on a Karras grid now asks the network at the timestep of its midpoint",
    ),
    Change(
        "0.2.0",
        lambda old, config: (
            "comfyui:" in f"{old.scheduler} {old.spacing}" and _NFE.get(_solver(old)) != 1
        ),
        "under comfyui: the timesteps between those of the grid are now rounded as there",
    ),
    Change(
        "0.2.0",
        lambda old, config: (
            _solver(old) == "euler_a" and _spacing("karras", "exponential", "beta")(old)
        ),
        "euler_a's Karras, exponential and beta grids now follow the spacing in the model's config",
    ),
    Change(
        "0.2.0",
        lambda old, config: bool(config.get("thresholding")),
        "sample_max_value in the model's scheduler_config.json is now obeyed",
    ),
    Change(
        "0.2.0",
        _offset,
        "steps_offset in the scheduler_config.json of SDXL and LCM is now taken as it stands there",
    ),
)
