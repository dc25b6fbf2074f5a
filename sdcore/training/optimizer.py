"""Who moves the weights, and how fast: AdamW, its 8-bit form, Prodigy; warm-up and schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sdcore.errors import InputError

OPTIMIZERS = ("adamw", "adamw8bit", "prodigy")
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Group:
    """Parameters that are trained at one rate."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    rate: float
    decays: bool = True  # whether weight decay acts on those of two dimensions and more


def share(kind: str, step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate at `step` (from 0) of `steps`.

    kind: of SCHEDULES, after the warm-up; linear and cosine end at 0. warmup: steps in which it
    rises linearly; below 1 a share of all.
    """
    rising = round(warmup * steps) if warmup < 1 else round(warmup)
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return {
        "constant": 1.0,
        "linear": 1 - done,
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
    }[kind]


def optimizer_of(name: str, groups: Sequence[Group], weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer of these groups, whose `lr` the loop sets before each step.

    Raises InputError where it needs a package that is not here.
    """
    rows = []
    for group in groups:
        for decays in (True, False):
            mine = [p for p in group.parameters if (p.ndim > 1 and group.decays) == decays]
            if mine:
                decay = weight_decay if decays else 0.0
                rows.append({"params": mine, "lr": group.rate, "weight_decay": decay})
    if name == "adamw":
        device = groups[0].parameters[0].device.type
        return torch.optim.AdamW(rows, betas=(0.9, 0.999), fused=device in ("cpu", "cuda"))
    if name == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit  # type: ignore[import-not-found]
        except ImportError:
            raise _lacking(name, "bitsandbytes") from None
        return AdamW8bit(rows, betas=(0.9, 0.999))
    try:
        from prodigyopt import Prodigy  # type: ignore[import-not-found]
    except ImportError:
        raise _lacking(name, "prodigyopt") from None
    return Prodigy(rows, betas=(0.9, 0.99), use_bias_correction=True, safeguard_warmup=True)


def _lacking(name: str, package: str) -> InputError:
    return InputError(
        f"--optimizer {name} needs {package}, which is not installed: pip install 'sdcore[train]'"
    )


class Average:
    """An exponential moving average of parameters: a_k = d a_(k-1) + (1 - d) w_k.

    d grows from 1/10 to `decay`, so that the first weights do not weigh too long.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.values = [p.detach().clone() for p in self.parameters] if decay else []

    def update(self, step: int) -> None:
        """Take in the weights after `step` (from 0)."""
        if self.decay:
            decay = min(self.decay, (step + 1) / (step + 10))
            for value, parameter in zip(self.values, self.parameters, strict=True):
                value.lerp_(parameter.detach(), 1 - decay)

    def __enter__(self) -> None:
        """In here the weights are the average."""
        if self.decay:
            self._kept = [p.detach().clone() for p in self.parameters]
            self._copy(self.values)

    def __exit__(self, *_: object) -> None:
        if self.decay:
            self._copy(self._kept)
            del self._kept

    def keep(self) -> None:
        """The weights become the average for good."""
        self._copy(self.values)

    @torch.no_grad()
    def _copy(self, values: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(self.parameters if self.decay else (), values, strict=True):
            parameter.copy_(value)
