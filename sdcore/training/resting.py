"""Networks that no step asks, such as the VAE: their weights lie aside until pictures are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from sdcore.free_memory import give_back
from sdcore.models.layers import placement
from sdcore.stored_weights import Store, forget_changed, take_stored


class Resting:
    """Networks in the mode of memory `fast`, of which those that are not busy can be put aside.

    Aside is on the CPU, and there in the form that their files have. They are changed in place, and
    are afterwards equal to the bit.
    """

    def __init__(self, modules: Iterable[nn.Module], busy: Iterable[nn.Module]) -> None:
        """busy: networks that steps do ask; whoever shares a weight with one of them is not moved.

        The rest has one dtype each, as `load` gives it; what has several is not moved either.
        """
        kept = {id(p) for module in busy for p in (*module.parameters(), *module.buffers())}
        self._modules = [
            module
            for module in modules
            if kept.isdisjoint(map(id, (*module.parameters(), *module.buffers())))
            and len({p.dtype for p in module.parameters() if p.is_floating_point()}) == 1
        ]
        self._stores: list[Store] = []

    def put_aside(self) -> None:
        """Free what they take, where a file or the CPU can hold it."""
        if not self._stores:
            for module in self._modules:
                device, dtype = placement(module)
                forget_changed(module)
                take_stored(module)
                self._stores.append(Store(module.modules(), device, dtype))
        for module, store in zip(self._modules, self._stores, strict=True):
            vars(module)["placement"] = (store.device, store.dtype)
            store.put_away()
        give_back()

    def bring(self) -> None:
        """As they were."""
        for module, store in zip(self._modules, self._stores, strict=True):
            store.bring()
            vars(module).pop("placement", None)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """In here they are aside, but for `back`."""
        self.put_aside()
        try:
            yield
        finally:
            self.bring()

    @contextmanager
    def back(self) -> Iterator[None]:
        """In here, within `aside`, they are as they were."""
        self.bring()
        try:
            yield
        finally:
            self.put_aside()
