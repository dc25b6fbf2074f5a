"""How much memory a model may take: one mechanism, weights that are made ready only while needed.

A component's weights lie *stored*: on the CPU, as the file has them, mapped where they can be. To
run they must be *ready*: on the device, in the dtype that it computes in. Who is ready, and for how
long, is most of what the modes differ in; each gives up more than the one before:

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

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sdcore.errors import unknown
from sdcore.free_memory import give_back
from sdcore.models import VAE
from sdcore.models.layers import Attention


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


@dataclass(frozen=True)
class Origin:
    """Where a module's weights came from: what is still the file's own need not be kept ready.

    files: what they were read from, and each one's time of change and size.
    read: the weights as the files have them, by name, mapped where they can be.

    Each weight that is made of those has its name noted on it: see `note_origin`.
    """

    files: Mapping[Path, tuple[int, int]]
    read: Callable[[], Mapping[str, Tensor]]

    @property
    def changed(self) -> bool:
        """Whether the files are no longer what was read."""
        try:
            return _stamps(self.files) != self.files
        except OSError:
            return True


def _stamps(files: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    return {path: ((stat := path.stat()).st_mtime_ns, stat.st_size) for path in files}


def note_origin(
    module: nn.Module, files: Iterable[Path], read: Callable[[], Mapping[str, Tensor]]
) -> None:
    """Let `module`, just loaded from `files`, know how to read its weights once more."""
    origin = Origin(_stamps(files), read)
    vars(module)["origin"] = origin
    for name, _, _, value in _weights(module):
        vars(value)["stored_as"] = (origin.files, name)


def _weights(module: nn.Module) -> Iterator[tuple[str, dict[str, Any], str, Tensor]]:
    """Every weight: its name in `module`, the mapping that holds it, its name there, itself."""
    for path, layer in module.named_modules():
        for held in (layer._parameters, layer._buffers):
            for name, value in held.items():
                if value is not None:
                    yield f"{path}.{name}".lstrip("."), held, name, value


def forget_changed(module: nn.Module) -> None:
    """What somebody has changed in place since it was loaded is no longer noted as the files'."""
    origin = vars(module).get("origin")
    stored = {} if origin is None or origin.changed else origin.read()
    for _, _, _, value in _weights(module):
        files, name = vars(value).get("stored_as", (None, ""))
        if origin is not None and files == origin.files and name in stored:
            same = stored[name].detach().to(value.device, value.dtype)
            if not torch.equal(same, value.detach()):
                del vars(value)["stored_as"]


def take_stored(module: nn.Module) -> None:
    """Let go of every weight of `module` that the files have, and take theirs, as stored.

    What an adapter changed stays as it is.
    """
    origin = vars(module).get("origin")
    if origin is None or origin.changed:
        return
    places: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for _, held, name, value in _weights(module):
        files, stored_as = vars(value).get("stored_as", (None, ""))
        if files == origin.files:
            places.setdefault(stored_as, []).append((held, name))
            # First, for there may be no room for both.
            nothing = torch.empty(value.shape, dtype=value.dtype, device="meta")
            held[name] = _as_parameter(nothing, held)
    del value
    for whole, stored in origin.read().items():
        for held, name in places.get(whole, ()):
            held[name] = _as_parameter(stored, held)


class Store:
    """The weights of some layers, stored, and made ready and stored again on demand."""

    def __init__(
        self,
        layers: Iterable[nn.Module],
        device: torch.device,
        dtype: torch.dtype,
        place: torch.device | str = "cpu",  # of what is stored
    ):
        self.device, self.dtype = device, dtype
        self.ready = True  # until they have been put away for the first time
        self._stored: list[tuple[dict[str, Any], str, Tensor]] = []
        for layer in layers:
            for own in (layer._parameters, layer._buffers):
                for name, value in own.items():
                    if value is not None:
                        kept = value.detach().to(place)
                        self._stored.append((own, name, _as_parameter(kept, own)))

    def bring(self) -> None:
        """Make ready: on the device, floats in the dtype. Nothing happens if they are."""
        if self.ready:
            return
        # Not inference tensors: a later run may want gradients through the same weights.
        with torch.inference_mode(False):
            for own, name, value in self._stored:
                dtype = self.dtype if value.is_floating_point() else value.dtype
                moved = value.detach().to(self.device, dtype, copy=value.data_ptr() % 64 != 0)
                own[name] = _as_parameter(moved, own)
        self.ready = True

    def put_away(self) -> None:
        """Back to what is stored; what was ready is freed."""
        for own, name, value in self._stored:
            own[name] = value
        self.ready = False


def _as_parameter(value: Tensor, own: Mapping[str, Tensor | None]) -> Tensor:
    parameters = any(isinstance(each, nn.Parameter) for each in own.values())
    return nn.Parameter(value, requires_grad=False) if parameters else value


@dataclass(frozen=True, eq=False)
class _Hook:
    """A hook of ours on a module: only these are ever removed, and not a user's."""

    act: Callable[[], None]

    def __call__(self, *_: object) -> None:
        self.act()


def unhook(module: nn.Module) -> None:
    """Remove the hooks that a mode of memory has set on a module and all that is in it."""
    for layer in module.modules():
        for hooks in (layer._forward_pre_hooks, layer._forward_hooks):
            for number in [key for key, hook in hooks.items() if isinstance(hook, _Hook)]:
                del hooks[number]
                layer._forward_hooks_always_called.pop(number, None)


def put_away(module: nn.Module) -> None:
    """Store whatever of a module a mode of memory has made ready."""
    for store in vars(module).get("stores", ()):
        store.put_away()


def by_layer(
    module: nn.Module, device: torch.device, dtype: torch.dtype, place: torch.device | str = "cpu"
) -> list[Store]:
    """Hook every layer of `module`, so that it is ready during its own forward and no longer.

    place: where what is stored lies.
    """
    stores = []
    for layer in module.modules():
        if not (layer._parameters or layer._buffers):
            continue
        store = Store([layer], device, dtype, place)
        store.put_away()
        # Around a user's hooks, which find the weights ready.
        layer.register_forward_pre_hook(_Hook(store.bring), prepend=True)
        layer.register_forward_hook(_Hook(store.put_away), always_call=True)
        stores.append(store)
    return stores


def by_turns(modules: Mapping[nn.Module, torch.dtype], device: torch.device) -> list[Store]:
    """Hook the components, so that calling one makes it ready and puts the others away."""
    stores = [Store(module.modules(), device, dtype) for module, dtype in modules.items()]

    def bring(mine: Store) -> None:
        for store in stores:
            if store is not mine and store.ready:
                store.put_away()
        mine.bring()

    for module, store in zip(modules, stores, strict=True):
        store.put_away()
        # A VAE is not called itself; its encoder and its decoder are.
        for entrance in (module, *module.children()):
            entrance.register_forward_pre_hook(_Hook(partial(bring, store)), prepend=True)
    return stores


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
