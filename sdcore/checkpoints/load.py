"""Weights into modules, strictly: every key wanted is there, and every key there is wanted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sdcore.checkpoints.folder import Component
from sdcore.checkpoints.names import Rename, text_encoder_key, unet_key, vae_key
from sdcore.checkpoints.read import Weights, as_dtype
from sdcore.errors import InputError
from sdcore.models import VAE, TextEncoder, TextEncoderConfig, UNet, UNetConfig, VAEConfig


@dataclass(frozen=True)
class Kind:
    """How a component is built from its config.json, and how its keys are spelt."""

    build: Callable[[Mapping[str, Any]], nn.Module]
    rename: Rename


KINDS = {
    "text_encoder": Kind(lambda c: TextEncoder(TextEncoderConfig.from_dict(c)), text_encoder_key),
    "text_encoder_2": Kind(lambda c: TextEncoder(TextEncoderConfig.from_dict(c)), text_encoder_key),
    "unet": Kind(lambda c: UNet(UNetConfig.from_dict(c)), unet_key),
    "vae": Kind(lambda c: VAE(VAEConfig.from_dict(c)), vae_key),
}


class NoInit(TorchFunctionMode):
    """New modules draw no first weights, which the file's are about to replace.

    On the meta device torch imports its compiler to "draw" them: 0.9 s and 90 MB.
    """

    DRAWS = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        return kwargs["tensor"] if func in self.DRAWS else func(*args, **kwargs)


def load_component(
    component: Component,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = torch.float32,
) -> nn.Module:
    """Build a component from its configuration and fill it from its files.

    Args:
        dtype: of the floating parameters; None keeps each as it is stored.

    Returns:
        The module in eval mode, its parameters without gradients.

    Raises:
        InputError: a broken file, or keys and shapes that do not fit the configuration.
    """
    kind = KINDS[component.name]
    try:
        with torch.device("meta"), NoInit():
            module = kind.build(component.config)
    except (TypeError, ValueError, AssertionError, ArithmeticError, RuntimeError) as error:
        raise InputError(f"{component.config_path}: {error}") from None
    weights = Weights(component.files)
    label = f"{component.files[0]} does not fit {component.config_path.name} beside it"
    load_strictly(module, weights, kind.rename, label, device, dtype)
    return module.eval().requires_grad_(False)


def load_strictly(
    module: nn.Module,
    weights: Weights,
    rename: Rename,
    label: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> None:
    """Assign `weights` to a `module` built on the meta device; nothing is allocated twice.

    Raises InputError, beginning with `label` and naming the keys, unless names and shapes match
    one to one. They are compared by the headers, before any weight is read.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    names = {key: new for key in weights.names() if (new := rename(key)) is not None}
    found = {new: weights.info[key].shape for key, new in names.items()}
    problems = [
        _listed("missing", sorted(wanted.keys() - found.keys())),
        _listed("unknown", sorted(found.keys() - wanted.keys())),
        _listed(
            "of another shape",
            [
                f"{key} (file {list(found[key])}, config {list(shape)})"
                for key, shape in sorted(wanted.items())
                if key in found and found[key] != shape
            ],
        ),
    ]
    if any(problems):
        raise InputError(f"{label}: {'; '.join(filter(None, problems))}")
    if len(found) < len(names):
        raise InputError(f"{label}: it holds the same weights under two names")
    # One tensor at a time: a float16 file becomes float32 without ever lying in memory twice.
    state = {
        names[key]: as_dtype(tensor, dtype).to(device) for key, tensor in weights if key in names
    }
    module.load_state_dict(state, strict=True, assign=True)


def _listed(what: str, keys: list[str], most: int = 4) -> str:
    """'3 missing: a, b, c', the list cut after `most`; '' for none."""
    if not keys:
        return ""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"{len(keys)} {what}: {', '.join(keys[:most])}{more}"
