"""LoRA (Hu et al. 2021, arXiv 2106.09685) and DoRA (Liu et al. 2024, arXiv 2402.09353), trained.

The base weights stay as they are, in whatever precision; what is trained lies beside them in
float32: y = W x + (alpha / r) B A x. A [r, in] begins at random, B [out, r] at zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcore.adapters import twin, with_lora, write_lora
from sdcore.adapters.deltas import Parts
from sdcore.adapters.names import Place
from sdcore.errors import InputError
from sdcore.networks import Networks
from sdcore.training.optimizer import Group
from sdcore.training.plan import Plan

_ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0")
_TEXT = (".q_proj", ".k_proj", ".v_proj", ".out_proj", ".fc1", ".fc2")


class LowRank(nn.Module):
    """A layer with a trained path beside it. dropout: of the r numbers between A and B."""

    def __init__(
        self, layer: nn.Linear | nn.Conv2d, plan: Plan, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.layer, self.rank, self.scale = layer, plan.rank, plan.scale
        self.dropout = plan.dropout
        weight = layer.weight
        device, inputs = weight.device, weight.shape[1:]
        ones = (1,) * (weight.ndim - 2)  # a convolution's B is one of 1 x 1
        # kaiming_uniform_(a=sqrt(5)) of a matrix, as kohya's trainer and PEFT begin.
        bound = inputs.numel() ** -0.5
        down = (2 * torch.rand(plan.rank, *inputs, generator=generator) - 1) * bound
        self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], plan.rank, *ones, device=device))
        self.magnitude = None
        if plan.dora:
            norm = weight.detach().float().flatten(1).norm(dim=1)
            self.magnitude = nn.Parameter(norm.view(-1, *(1,) * (weight.ndim - 1)))

    @property
    def weight(self) -> Tensor:
        """The base's, which nothing changes."""
        return self.layer.weight

    @property
    def bias(self) -> Tensor | None:
        return self.layer.bias

    def forward(self, x: Tensor) -> Tensor:
        beside = self._low_rank(x)
        if self.magnitude is None:
            return self.layer(x) + beside
        # W' = m V / ||V||, V = W + dW; the norm is a constant to the gradient (section 4.3).
        factor = (self.magnitude / self._norm()).to(x.dtype).flatten()
        factor = factor[:, None, None] if x.ndim == 4 else factor
        y = self.layer(x)
        if (bias := self.layer.bias) is not None:
            bias = bias.to(y.dtype)
            bias = bias[:, None, None] if x.ndim == 4 else bias
            return factor * (y - bias + beside) + bias
        return factor * (y + beside)

    def _low_rank(self, x: Tensor) -> Tensor:
        down, up = self.down.to(x.dtype), self.up.to(x.dtype)
        layer = self.layer
        if isinstance(layer, nn.Conv2d):
            assert isinstance(layer.padding, tuple)
            h = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
            return F.conv2d(self._dropped(h), up * self.scale)
        return F.linear(self._dropped(F.linear(x, down)), up * self.scale)

    def _dropped(self, h: Tensor) -> Tensor:
        return F.dropout(h, self.dropout, self.training)

    @torch.no_grad()
    def _norm(self) -> Tensor:
        delta = self.scale * (self.up.flatten(1) @ self.down.flatten(1))
        v = self.layer.weight.float().flatten(1) + delta
        norm = v.norm(dim=1) + torch.finfo(torch.float32).eps
        return norm.view(-1, *(1,) * (self.layer.weight.ndim - 1))

    def parts(self) -> Parts:
        """As an adapter's file has them."""
        parts = {"down": self.down.detach(), "up": self.up.detach(),
                 "alpha": torch.tensor(self.scale * self.rank)}  # fmt: skip
        if self.magnitude is not None:
            parts["dora_scale"] = self.magnitude.detach()
        return parts


class LoRATraining:
    """What `--method lora` trains."""

    def __init__(self, networks: Networks, plan: Plan) -> None:
        """Raises InputError where no layer is of the kind that is asked for."""
        self.base, self.plan = networks, plan
        generator = torch.Generator().manual_seed(plan.seed)
        self.layers: dict[Place, LowRank] = {}
        modules = {}
        for component, module in networks.modules.items():
            if component == "unet" or (plan.text and component.startswith("text_encoder")):
                modules[component] = self._laid(component, module, generator)
        if not any(component == "unet" for component, _ in self.layers):
            raise InputError(f"this UNet has no layer of the kind {plan.targets!r}")
        self.networks = networks.with_modules(modules)

    def _laid(self, component: str, module: nn.Module, generator: torch.Generator) -> nn.Module:
        """A copy of a network, sharing its weights, with low-rank paths beside its layers."""
        module = twin(module)
        for name in targets(component, module, self.plan.targets):
            parent, _, last = name.rpartition(".")
            holder, layer = module.get_submodule(parent), module.get_submodule(name)
            assert isinstance(layer, nn.Linear | nn.Conv2d)
            self.layers[component, name] = LowRank(layer, self.plan, generator)
            setattr(holder, last, self.layers[component, name])
        return module

    @property
    def groups(self) -> list[Group]:
        def of(text: bool) -> tuple[nn.Parameter, ...]:
            return tuple(p for (component, _), layer in self.layers.items()
                         if (component != "unet") == text for p in _trained(layer))  # fmt: skip

        groups = [Group("unet", of(False), self.plan.rate)]
        text = of(True)
        return [*groups, Group("text", text, self.plan.text_rate)] if text else groups

    def write(self, path: Path, notes: Mapping[str, str]) -> Path:
        """The adapter, as `path`.safetensors."""
        path = path.with_name(f"{path.name}.safetensors")
        layers = {place: layer.parts() for place, layer in self.layers.items()}
        components = {name: m for name, m in self.base.modules.items() if name != "vae"}
        dtype = getattr(torch, self.plan.save_dtype)
        write_lora(path, layers, components, self.plan.layout, notes, dtype)
        return path

    def drawing(self, path: Path) -> Networks:
        """The model as it draws with what was written."""
        return with_lora(self.base, path)


def _trained(layer: LowRank) -> Iterator[nn.Parameter]:
    yield from (p for p in (layer.down, layer.up, layer.magnitude) if p is not None)


def targets(component: str, module: nn.Module, kind: str) -> Iterator[str]:
    """The layers of a network that get a path.

    attention: queries, keys, values and outputs, as diffusers' scripts have it; transformer: all
    linear layers and 1x1 convolutions of the transformer blocks, as kohya's; all: the convolutions
    of residual blocks and between the sizes too.
    """
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        if component != "unet":
            if name.endswith(_TEXT[:4] if kind == "attention" else _TEXT):
                yield name
        elif ".attentions." in name:
            if kind != "attention" or name.endswith(_ATTENTION):
                yield name
        elif kind == "all" and (".resnets." in name or ".downsamplers." in name
                                or ".upsamplers." in name):  # fmt: skip
            yield name
