"""How much memory a model may take: one mechanism, weights that are made ready only while needed.

A component's weights lie *stored*: on the CPU, as the file has them, mapped where they can be. To
run they must be *ready*: on the device, in the dtype that it computes in. Who is ready, and for how
long, is most of what the modes differ in; each gives up more than the one before:

| mode     | ready at a time   | attention    | VAE                      |
|----------|-------------------|--------------|--------------------------|
| fast     | everything        | whole        | whole                    |
| sliced   | everything        | 1024 queries | whole                    |
| tiled    | everything        | 1024 queries | tiles beyond 1024 pixels |
| balanced | one component     | 1024 queries | tiles beyond 1024 pixels |
| low      | one layer         | 1024 queries | tiles beyond 512 pixels  |

Making ready changes no number. So the modes draw the same picture but for rounding in sliced
attention, and but for pictures so large that the VAE takes them in tiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sdcore.errors import unknown
from sdcore.models import VAE
from sdcore.models.layers import Attention


@dataclass(frozen=True)
class Memory:
    """What is traded for memory. Time is; the picture's size and steps never are.

    rows: how many queries attention takes at a time; None all.
    tile: side in latent pixels beyond which the VAE works in tiles of that side; None never.
    ready: what is ready at a time.
    """

    rows: int | None = None
    tile: int | None = None
    ready: Literal["all", "component", "layer"] = "all"


MODES: Mapping[str, Memory] = {
    "fast": Memory(),
    "sliced": Memory(rows=1024),
    "tiled": Memory(rows=1024, tile=128),
    "balanced": Memory(rows=1024, tile=128, ready="component"),
    "low": Memory(rows=1024, tile=64, ready="layer"),
}


def leaner(mode: str) -> str | None:
    """The next mode, for when memory runs out in this one; None after the last."""
    names = [*MODES, None]
    return names[names.index(mode) + 1]


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


def available(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU's allocator, could not give what was asked for."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


class Store:
    """The weights of some layers, stored, and made ready and stored again on demand."""

    def __init__(self, layers: Iterable[nn.Module], device: torch.device, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        self.ready = True  # until they have been put away for the first time
        self._stored: list[tuple[dict[str, Any], str, Tensor]] = []
        for layer in layers:
            for own in (layer._parameters, layer._buffers):
                for name, value in own.items():
                    if value is not None:
                        kept = value.detach().to("cpu")
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
    kinds = {type(each) for each in own.values() if each is not None}
    return nn.Parameter(value, requires_grad=False) if nn.Parameter in kinds else value


def by_layer(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Hook every layer of `module`, so that it is ready during its own forward and no longer."""
    for layer in module.modules():
        if not (layer._parameters or layer._buffers):
            continue
        store = Store([layer], device, dtype)
        store.put_away()
        layer.register_forward_pre_hook(lambda *_, s=store: s.bring())
        layer.register_forward_hook(lambda *_, s=store: s.put_away(), always_call=True)


def by_turns(modules: Mapping[nn.Module, torch.dtype], device: torch.device) -> None:
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
            entrance.register_forward_pre_hook(lambda *_, s=store: bring(s))


def apply(
    components: Mapping[str, nn.Module],
    mode: str,
    device: torch.device,
    dtypes: Mapping[str, torch.dtype],
) -> None:
    """Put the components of one model into a mode, in place, as `Module.to` does.

    dtypes: what each computes in. For balanced and low the weights may be as stored; else they
    must be ready. A model can be put into a leaner mode than it is in, not back.
    """
    memory = MODES[mode]
    for name, module in components.items():
        for each in module.modules():
            if isinstance(each, Attention):
                each.rows = memory.rows
            if isinstance(each, VAE):
                each.tile = memory.tile
            if memory.ready != "all":  # the hooks of the mode before
                each._forward_hooks.clear()
                each._forward_pre_hooks.clear()
        if memory.ready != "all":
            vars(module)["placement"] = (device, dtypes[name])  # see layers.placement
    if memory.ready == "component":
        by_turns({m: dtypes[name] for name, m in components.items()}, device)
    if memory.ready == "layer":
        for name, module in components.items():
            by_layer(module, device, dtypes[name])
