"""Adapters into networks: merged into copies of the weights, or run beside the layers.

Nothing is changed in place. Both forms give new modules that share every tensor which no adapter
touches, so the network without them is still there, bit for bit, and is simply used again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcore.adapters.deltas import LOW_RANK, MAGNITUDES, Parts, change, factor
from sdcore.adapters.lora import LoRA, open_lora
from sdcore.adapters.names import Place
from sdcore.checkpoints import Checkpoint, load_component
from sdcore.checkpoints.read import as_dtype
from sdcore.errors import InputError
from sdcore.models.layers import placement
from sdcore.stored_weights import put_away, unhook
from sdcore.strengths import parse_lora

M = TypeVar("M", bound=nn.Module)
_NO_WEIGHT = {"alpha", "dora_scale", "magnitude", "diff_b", "b_norm"}
_BIAS = {"diff_b", "b_norm"}


def twin(module: M) -> M:
    """A copy of a module that shares every parameter and buffer with it, and a user's hooks.

    The weights are as stored, and not what a mode of memory has made ready.
    """
    put_away(module)
    shared: list[Any] = [*module.parameters(), *module.buffers()]
    for part in module.modules():
        shared += [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
    memo: dict[int, Any] = {id(each): each for each in shared}
    if "stores" in vars(module):  # they are of the first one's weights
        memo[id(vars(module)["stores"])] = ()
    module = copy.deepcopy(module, memo)
    unhook(module)
    return module


def adapted(component: str, module: M, loras: Sequence[LoRA]) -> M:
    """The network with all of `loras` acting on it: W' = W + sum of strength_i dW_i(W).

    Each dW is of the untouched W, so their order does not matter beyond rounding. Sums are in
    float32 and rounded once to the network's dtype. An unmerged adapter leaves the weight, and
    adds strength * dW x to what the layer gives; its norms and biases are merged all the same.

    Args:
        component: whose strengths count, e.g. "unet".
        module: not changed; returned as it is where no adapter touches it.

    Raises:
        InputError: parts that fit another shape, named with file and layer.
    """
    terms: dict[str, list[LoRA]] = {}
    for lora in loras:
        for where, name in lora.layers:
            if where == component and lora.strength(component) != 0:
                terms.setdefault(name, []).append(lora)
    if not terms:
        return module
    _, dtype = placement(module)
    module = twin(module)
    for name, own in terms.items():
        parent, _, last = name.rpartition(".")
        layer = module.get_submodule(name)
        try:
            new = _adapted(layer, own, (component, name), dtype)
        except InputError as error:
            files = " and ".join(dict.fromkeys(lora.name for lora in own))
            raise InputError(f"{files} does not fit {component}.{name}: {error}") from None
        setattr(module.get_submodule(parent), last, new)
    return module


def merged(
    checkpoint: Checkpoint, specs: Sequence[str], dtype: torch.dtype | None = None
) -> tuple[dict[str, dict[str, Tensor]], tuple[LoRA, ...]]:
    """A checkpoint's weights with adapters merged in, component by component.

    Args:
        specs: as `parse_lora` reads them.
        dtype: of the parameters; None: as stored. The sums are in float32 either way, and rounded
            to it once.

    Returns:
        component -> its parameters, of those that adapters touch; the adapters.

    Raises:
        InputError: no adapter, one of an unknown kind, one for another family.
    """
    modules = {
        name: load_component(component, "cpu", None if dtype is None else torch.float32)
        for name, component in checkpoint.components.items()
        if name != "vae"
    }
    loras = []
    for spec in specs:
        path, unet, text = parse_lora(spec)
        loras.append(open_lora(path, modules, unet, text))
    new = {name: adapted(name, module, loras) for name, module in modules.items()}
    touched = {
        name: {key: as_dtype(tensor, dtype) for key, tensor in module.state_dict().items()}
        for name, module in new.items()
        if module is not modules[name]
    }
    return touched, tuple(loras)


def _adapted(
    layer: nn.Module, loras: Sequence[LoRA], place: Place, dtype: torch.dtype
) -> nn.Module:
    # In the dtype that the network computes in, which its weights may not be stored in.
    weight, bias = (None if p is None else p.to(dtype) for p in _parameters(layer))
    assert weight is not None
    whole, shift, paths = weight.float(), None if bias is None else bias.float(), []
    for lora in loras:
        parts, strength = lora.layers[place], lora.strength(place[0])
        if parts.keys() - _NO_WEIGHT:
            delta = change(parts, weight)
            if lora.merged or not isinstance(layer, nn.Linear | nn.Conv2d):
                whole = whole + strength * delta
            else:
                paths.append(Beside(layer, parts, strength, dtype))
        elif parts.keys().isdisjoint(_BIAS):
            raise InputError(f"incomplete: it has {', '.join(sorted(parts))}")
        for name in parts.keys() & _BIAS:
            if shift is None or parts[name].shape != shift.shape:
                raise InputError("a bias that this layer does not have")
            shift = shift + strength * parts[name].to(shift)
    for name, old, new in (("weight", weight, whole), ("bias", bias, shift)):
        if old is not None and new is not None and not torch.equal(old.float(), new):
            setattr(layer, name, nn.Parameter(new.to(dtype), requires_grad=False))
    return Adapted(layer, paths) if paths else layer


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    weight, bias = layer.weight, getattr(layer, "bias", None)
    assert isinstance(weight, Tensor)
    return weight, bias if isinstance(bias, Tensor) else None


class Adapted(nn.Module):
    """A layer, and adapters that run beside it."""

    def __init__(self, base: nn.Module, paths: Sequence[nn.Module]) -> None:
        super().__init__()
        self.base = base
        self.paths = nn.ModuleList(paths)

    @property
    def weight(self) -> Tensor:
        """The layer's own, which no adapter has touched."""
        return _parameters(self.base)[0]

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        for path in self.paths:
            y = y + path(x)
        return y


class Beside(nn.Module):
    """strength * dW x. A LoRA's dW is never multiplied out; that of other kinds is, each time."""

    def __init__(self, layer: nn.Module, parts: Parts, strength: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = [layer]  # in a list: it is the neighbour's, and no part of this
        self.strength = strength
        self.names = tuple(parts)
        weight, _ = _parameters(layer)
        self.low_rank = LOW_RANK.issubset(parts) and MAGNITUDES.isdisjoint(parts)
        for name, part in parts.items():
            # In the network's precision where they multiply its activations.
            wanted = dtype if self.low_rank and name != "alpha" else torch.float32
            self.register_buffer(name, part.to(weight.device, wanted), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        layer, parts = self.layer[0], {name: getattr(self, name) for name in self.names}
        if not self.low_rank:
            weight, _ = _parameters(layer)
            delta = self.strength * change(parts, weight.to(x.device, x.dtype))
            return _run(layer, x, delta.to(x.dtype))
        scale = self.strength * factor(parts)
        if isinstance(layer, nn.Conv2d):
            return scale * self._convolved(layer, x, parts)
        return scale * F.linear(F.linear(x, parts["down"].flatten(1)), parts["up"].flatten(1))

    def _convolved(self, layer: nn.Conv2d, x: Tensor, parts: Parts) -> Tensor:
        down, up, size = parts["down"], parts["up"].flatten(1)[:, :, None, None], layer.kernel_size
        if "mid" in parts:
            x = F.conv2d(x, down.flatten(1)[:, :, None, None])
            return F.conv2d(_run(layer, x, parts["mid"]), up)
        return F.conv2d(_run(layer, x, down.view(len(down), -1, *size)), up)


def _run(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """The layer with another weight and no bias."""
    if isinstance(layer, nn.Conv2d):
        assert isinstance(layer.padding, tuple)
        return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation)
    return F.linear(x, weight)
