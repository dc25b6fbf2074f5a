"""Which form of a network may run here, and why not the fast one where it may not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from sdcore.engine.ops import Ops
from sdcore.errors import unknown
from sdcore.models import VAE, UNet
from sdcore.models import layers as shared
from sdcore.models import unet as unets
from sdcore.models import vae as vaes
from sdcore.models.layers import placement

ENGINES = ("plain", "auto", "compile")

# The layers that the fast forms know. Whatever else stands in a network's place is run plainly.
_KNOWN = {
    UNet,
    VAE,
    nn.Conv2d,
    nn.Linear,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.Identity,
    nn.ModuleList,
    *(getattr(shared, name) for name in ("Attention", "ResnetBlock", "Downsample", "Upsample")),
    *(getattr(unets, name) for name in (
        "TimestepEmbedding", "GEGLU", "FeedForward", "TransformerBlock", "Transformer2D",
        "DownBlock", "MidBlock", "UpBlock",
    )),
    *(getattr(vaes, name) for name in (
        "AttentionBlock", "MidBlock", "Block", "Encoder", "Decoder",
    )),
}  # fmt: skip


def _methods(kind: Any) -> tuple[object, object]:
    return kind.forward, getattr(kind, "decode", None)


_AS_WRITTEN = {kind: _methods(kind) for kind in _KNOWN}


@dataclass(frozen=True)
class Choice:
    """engine: "plain", "fast" or "compile": what runs. why: one line, where that was not asked."""

    engine: str
    why: str | None = None


def check_engine(name: str) -> str:
    """The name of an engine. Raises InputError for one that is none."""
    if name not in ENGINES and name != "fast":
        raise unknown("engine", name, ENGINES)
    return name


def choose(network: nn.Module, engine: str = "auto") -> Choice:
    """What of `plain`, `auto` and `compile` a UNet or a VAE can be run as, as it is now.

    "fast", as a picture's settings may say, is "auto". Raises InputError for another name.
    """
    if check_engine(engine) == "plain":
        return Choice("plain")
    why = special(network)
    if why is not None:
        return Choice("plain", f"the plain engine draws: {why}")
    if engine == "compile":
        return Choice("compile")
    device, dtype = placement(network)
    if ops_for(device, dtype) is None:
        return Choice("plain", None)
    return Choice("fast")


def special(network: nn.Module) -> str | None:
    """What keeps a network from being run in another form than its own; None where nothing does."""
    if getattr(network, "freeu", None) is not None:
        return "FreeU stands in the middle of the network"
    if "placement" in vars(network):
        return "this mode of memory moves weights while it runs"
    modules = list(network.modules())
    for kind in dict.fromkeys(map(type, modules)):
        if kind not in _AS_WRITTEN:
            return f"a layer is a {kind.__name__}"
        if _AS_WRITTEN[kind] != _methods(kind):  # somebody's own, in its place
            return f"what a {kind.__name__} does was replaced"
    for module in modules:
        here = vars(module)  # not getattr: a module looks long for what it lacks
        if module._forward_hooks or module._forward_pre_hooks or "forward" in here:
            return "a layer has a hook"
        if here.get("rows") is not None:
            return "this mode of memory slices attention"
        if here.get("tile") is not None:
            return "this mode of memory draws in tiles"
        if any(each is not None and each.requires_grad for each in module._parameters.values()):
            return "weights ask for gradients"
    return None


@cache
def ops_for(device: torch.device, dtype: torch.dtype) -> Ops | None:
    """The fastest layers that work on this device in this dtype; None: the modules' own."""
    if device.type == "cuda":
        try:
            from sdcore.engine import cuda, kernels
        except ImportError:  # no Triton: graphs and cached texts remain
            return Ops()
        return cuda.CudaOps() if kernels.available(device) else Ops()
    if device.type == "cpu":
        from sdcore.engine import cpu

        return cpu.CpuOps() if cpu.available(dtype) else None
    return None
