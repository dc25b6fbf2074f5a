"""Weights into modules, strictly: every key wanted is there, and every key there is wanted."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sdcore.checkpoints.checkpoint import Component
from sdcore.checkpoints.parameter_names import Spelling, shape_after
from sdcore.checkpoints.read import Weights, aligned
from sdcore.errors import InputError, listed
from sdcore.models import (
    VAE,
    TextEncoder,
    TextEncoderConfig,
    TinyVAE,
    TinyVAEConfig,
    UNet,
    UNetConfig,
    VAEConfig,
)
from sdcore.models.vae_config import TINY

BUILD: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "text_encoder": lambda config: TextEncoder(TextEncoderConfig.from_dict(config)),
    "text_encoder_2": lambda config: TextEncoder(TextEncoderConfig.from_dict(config)),
    "unet": lambda config: UNet(UNetConfig.from_dict(config)),
    "vae": lambda config: _vae(config),
}


def _vae(config: Mapping[str, Any]) -> nn.Module:
    if config.get("_class_name") == TINY:
        return TinyVAE(TinyVAEConfig.from_dict(config))
    return VAE(VAEConfig.from_dict(config))


class NoInit(TorchFunctionMode):
    """New modules draw no first weights, which the file's are about to replace.

    On the meta device torch imports its compiler to "draw" them: 0.9 s and 90 MB.

    most: how many parameters are made; more raise InputError. A configuration that asks for a
        billion layers would make them one by one, for hours.
    """

    def __init__(self, most: float = math.inf) -> None:
        super().__init__()
        self.most = most

    DRAWS = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        if func is torch.empty:
            self.most -= 1
            if self.most < 0:
                raise InputError("it asks for more layers than its weights are for")
        return kwargs["tensor"] if func in self.DRAWS else func(*args, **kwargs)


def ready_bytes(component: Component, dtype: torch.dtype) -> int:
    """What a component takes in memory once it is loaded in `dtype`; reads the headers only."""
    info = Weights(component.files).info
    mine = (math.prod(info[key].shape) for key in info if component.spelling(key))
    return sum(mine) * dtype.itemsize


def load_component(
    component: Component,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = torch.float32,
    packed: bool = False,
) -> nn.Module:
    """Build a component from its configuration and fill it from its files.

    Args:
        dtype: of the floating parameters; None keeps each as it is stored, mapped where it can
            be, for `sdcore.stored_weights` to make ready.
        packed: with no dtype, quantized weights stay so (`Weights.read`).

    Returns:
        The module in eval mode, its parameters without gradients.

    Raises:
        InputError: a broken file, or keys and shapes that do not fit the configuration.
    """
    module, label = _built(component)
    weights = Weights(component.files)
    load_strictly(module, weights, component.spelling, label, device, dtype, packed)
    return module.eval().requires_grad_(False)


def outline(component: Component) -> nn.Module:
    """The module on the meta device: its layers and their shapes, by the configuration alone.

    Raises InputError for one that no network can be built from.
    """
    return _built(component)[0]


def check_component(component: Component) -> None:
    """Raises InputError where `load_component` would; reads the headers only."""
    module, label = _built(component)
    _origins(module, Weights(component.files), component.spelling, label)


def _built(component: Component) -> tuple[nn.Module, str]:
    """The module on the meta device, and how a complaint about its weights begins."""
    # A tensor of the file is cut into 3 parameters at most; a few that it lacks are still named.
    most = 3 * len(Weights(component.files).info) + 1000
    try:
        with torch.device("meta"), NoInit(most):
            module = BUILD[component.name](component.config)
    except (TypeError, ValueError, AssertionError, ArithmeticError, RuntimeError) as error:
        raise InputError(f"{component.config_path}: {error}") from None
    if component.config_path in component.files:
        return module, f"{component.files[0]}, {component.name}"
    return module, f"{component.files[0]} does not fit {component.config_path.name} beside it"


def load_strictly(
    module: nn.Module,
    weights: Weights,
    spelling: Spelling,
    label: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    packed: bool = False,
) -> None:
    """Assign `weights` to a `module` built on the meta device; nothing is allocated twice.

    Raises InputError, beginning with `label` and naming the keys, unless names and shapes match
    one to one. They are compared by the headers, before any weight is read.
    """
    origins = _origins(module, weights, spelling, label)
    # One tensor at a time: a float16 file becomes float32 without ever lying in memory twice.
    settled = aligned if dtype is not None else lambda tensor: tensor
    state = {
        name: settled(cut(tensor))
        for key, tensor in weights.read(set(origins.values()), dtype, device, packed)
        for name, cut in spelling(key).items()
    }
    module.load_state_dict(state, strict=True, assign=True)


def _origins(module: nn.Module, weights: Weights, spelling: Spelling, label: str) -> dict[str, str]:
    """The key that each of the module's parameters is stored under. Raises InputError."""
    state = module.state_dict()
    wanted = {name: tuple(value.shape) for name, value in state.items()}
    floating = {name for name, value in state.items() if value.is_floating_point()}
    parts = {key: spelling(key) for key in weights.names()}
    origin = {name: key for key, cuts in parts.items() for name in cuts}
    shapes = {
        name: shape_after(parts[key][name], weights.info[key].shape) for name, key in origin.items()
    }
    wholes = [
        f"{key} ({weights.info[key].dtype})"
        for name, key in sorted(origin.items())
        if name in floating and not weights.info[key].floating
    ]
    problems = [
        listed("missing", sorted(wanted.keys() - shapes.keys())),
        listed("unknown", sorted(origin[name] for name in shapes.keys() - wanted.keys())),
        listed(
            "of another shape",
            [
                f"{name} (file {list(shapes[name])}, config {list(shape)})"
                for name, shape in sorted(wanted.items())
                if name in shapes and shapes[name] != shape
            ],
        ),
        listed("not of floating numbers", wholes),
    ]
    if any(problems):
        raise InputError(f"{label}: {'; '.join(filter(None, problems))}")
    if len(shapes) < sum(map(len, parts.values())):
        raise InputError(f"{label}: it holds the same weights under two names")
    return origin
