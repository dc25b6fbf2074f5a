"""How much memory a model may take: one mechanism, weights that are made ready only while needed.

A component's weights lie *stored*, and to run they must be *ready* (`sdcore.stored_weights`). Who
is ready, and for how long, is most of what the modes differ in; each gives up more than the one
before:

| mode      | ready at a time   | attention    | VAE                      |
|-----------|-------------------|--------------|--------------------------|
| fast      | everything        | whole        | whole                    |
| sliced    | everything        | 1024 queries | whole                    |
| tiled     | everything        | 1024 queries | tiles beyond 1024 pixels |
| balanced  | one component     | 1024 queries | tiles beyond 1024 pixels |
| low       | one layer         | 1024 queries | tiles beyond 512 pixels  |
| quantized | one layer         | whole        | whole                    |

`quantized` stands apart, and is never chosen for you: stored weights lie on the device, in the form
that the file has them in, and no layer waits for the CPU. It is worth its time where that form is
smaller than what is computed in: blocks of 4 bits, float8.

Making ready changes no number. So the modes draw the same picture but for rounding in sliced
attention, and but for pictures so large that the VAE takes them in tiles. In `fast` alone networks
may also be run in another form (`sdcore.engine`), equal but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from sdcore.errors import unknown
from sdcore.free_memory import give_back
from sdcore.models import VAE
from sdcore.models.layers import Attention
from sdcore.stored_weights import by_layer, by_turns, put_away, take_stored, unhook


@dataclass(frozen=True)
class MemoryMode:
    """What is traded for memory. Time is; the picture's size and steps never are.

    rows: how many queries attention takes at a time; None all.
    tile: side in latent pixels beyond which the VAE works in tiles of that side; None never.
    ready: what is ready at a time.
    on_device: whether what is stored lies on the device too, and not on the CPU.
    """

    rows: int | None = None
    tile: int | None = None
    ready: Literal["all", "component", "layer"] = "all"
    on_device: bool = False


MODES: Mapping[str, MemoryMode] = {
    "fast": MemoryMode(),
    "sliced": MemoryMode(rows=1024),
    "tiled": MemoryMode(rows=1024, tile=128),
    "balanced": MemoryMode(rows=1024, tile=128, ready="component"),
    "low": MemoryMode(rows=1024, tile=64, ready="layer"),
    "quantized": MemoryMode(ready="layer", on_device=True),
}
LEANER: Mapping[str, str] = {
    "fast": "sliced",
    "sliced": "tiled",
    "tiled": "balanced",
    "balanced": "low",
    "quantized": "low",
}


def leaner(mode: str) -> str | None:
    """The next mode, for when memory runs out in this one; None after the last."""
    return LEANER.get(mode)


def next_ready(mode: str) -> str | None:
    """The next mode in which fewer weights are on the device at a time; None after the last."""
    after = leaner(mode)
    while after is not None and _keeps(after) == _keeps(mode):
        after = leaner(after)
    return after


def _keeps(mode: str) -> tuple[str, bool]:
    return MODES[mode].ready, MODES[mode].on_device


def choose(mode: str | None, sizes: Iterable[int], available: int | None) -> str:
    """This mode; None takes the fastest that fits.

    sizes: bytes of each component when ready; available: bytes that are free, None if unknown.
    A quarter more than the weights and 1 GB are kept for what flows through them.

    Raises InputError for a mode that is none.
    """
    if mode is not None:
        if mode not in MODES:
            raise unknown("memory mode", mode, MODES)
        return mode
    if available is None:
        return "fast"
    sizes = list(sizes)
    needs = {"fast": sum(sizes), "balanced": max(sizes)}
    return next((m for m, need in needs.items() if 1.25 * need + 1e9 <= available), "low")


def apply(
    components: Mapping[str, nn.Module],
    mode: str,
    device: torch.device,
    dtypes: Mapping[str, torch.dtype],
) -> None:
    """Put the components of one model into a mode, in place, as `Module.to` does.

    dtypes: what each computes in. For balanced and low the weights may be as stored; else they
    must be ready. A model can be put into a leaner mode than it is in, not back: from then on it
    needs no more than one that began in it.
    """
    memory = MODES[mode]
    for name, module in components.items():
        for each in module.modules():
            if isinstance(each, Attention):
                each.rows = memory.rows
            if isinstance(each, VAE):
                each.tile = memory.tile
        if memory.ready != "all":
            unhook(module)
            put_away(module)  # in the mode before
            if "placement" not in vars(module):
                take_stored(module)
            vars(module)["placement"] = (device, dtypes[name])  # see layers.placement
    if memory.ready == "component":
        stores = by_turns({m: dtypes[name] for name, m in components.items()}, device)
        for module, store in zip(components.values(), stores, strict=True):
            vars(module)["stores"] = (store,)
    if memory.ready == "layer":
        for name, module in components.items():
            place = device if memory.on_device else "cpu"
            vars(module)["stores"] = tuple(by_layer(module, device, dtypes[name], place))
    if memory.ready != "all":
        give_back()
