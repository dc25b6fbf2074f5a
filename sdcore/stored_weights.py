"""Weights that lie stored, and are made ready only while somebody needs them.

Stored: on the CPU, or where one says, as the file has them, mapped where they can be. Ready: on the
device, in the dtype that it computes in. Making ready changes no number. When that happens is for
the modes of `sdcore.memory` to say, by hooks on the modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


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
