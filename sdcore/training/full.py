"""Full fine-tuning, and DreamBooth (Ruiz et al. 2023, arXiv 2208.12242): every weight is trained.

They are float32 whatever the model is in; in bfloat16 it computes by autocast.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sdcore.checkpoints import Checkpoint, open_source
from sdcore.checkpoints.convert import convert
from sdcore.networks import Networks
from sdcore.stored_weights import unhook
from sdcore.training.optimizer import Group
from sdcore.training.plan import Plan


class FullTraining:
    """What `--method full` and `--method dreambooth` train."""

    def __init__(self, networks: Networks, plan: Plan) -> None:
        self.base, self.plan = networks, plan
        self.trained = {
            name: _own(module)
            for name, module in networks.modules.items()
            if name == "unet" or (plan.text and name.startswith("text_encoder"))
        }
        self.networks = replace(networks.with_modules(self.trained), engine="plain")

    @property
    def groups(self) -> list[Group]:
        rates = {name: self.plan.rate if name == "unet" else self.plan.text_rate
                 for name in self.trained}  # fmt: skip
        return [Group(n, tuple(m.parameters()), rates[n]) for n, m in self.trained.items()]

    def write(self, path: Path, notes: Mapping[str, str]) -> Path:
        """The whole model: one file, or in diffusers' layout a folder."""
        if self.plan.layout == "kohya":
            path = path.with_name(f"{path.name}.safetensors")
        dtype = getattr(torch, self.plan.save_dtype)
        states = {
            name: {key: value.detach().to("cpu", dtype, copy=True)
                   for key, value in module.state_dict().items()}
            for name, module in self.trained.items()
        }  # fmt: skip
        convert(self._checkpoint(), path, dtype, states)
        return path

    def _checkpoint(self) -> Checkpoint:
        checkpoint = open_source(self.base.source.model, self.base.source.places)
        config = self.base.scheduler_config
        return checkpoint if config is None else replace(checkpoint, scheduler=dict(config))

    def drawing(self, path: Path | None) -> Networks:
        """The model as it is now, in the precision that it draws in."""
        dtype = self.networks.dtype
        if dtype == torch.float32:
            return self.networks
        lowered = {name: _lowered(module, dtype) for name, module in self.trained.items()}
        return self.networks.with_modules(lowered)


def _lowered(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    memo: dict[int, object] = {
        id(p): nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in module.parameters()
    }
    return copy.deepcopy(module, memo)


def _own(module: nn.Module) -> nn.Module:
    """A copy with weights of its own, in float32, that ask for gradients."""
    module = copy.deepcopy(module)
    unhook(module)
    return module.float().requires_grad_(True)
