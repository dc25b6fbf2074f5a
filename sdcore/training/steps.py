"""The steps of a training by its plan: batches of pictures, the loss of them, the updates.

All chance comes from the seed and the number of the step, so that what is known after a step is all
there is to know: weights, optimizer, average.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from sdcore.models.layers import placement
from sdcore.networks import Networks
from sdcore.process import Process
from sdcore.training.batches import Batch, Batches
from sdcore.training.conditions import Conditions
from sdcore.training.loss import min_snr_weight, squared_error
from sdcore.training.optimizer import Average, Group, share
from sdcore.training.order import NETWORK, rng_of
from sdcore.training.plan import Plan
from sdcore.training.ranks import Ranks
from sdcore.training.updates import NotFinite, TrainStep, Updates


class Trained(Protocol):
    """What is trained: networks with parameters in them."""

    @property
    def networks(self) -> Networks: ...

    @property
    def groups(self) -> list[Group]: ...


@dataclass
class Trainer:
    """All that a step needs."""

    trained: Trained
    plan: Plan
    process: Process
    batches: Batches
    optimizer: torch.optim.Optimizer
    average: Average
    total: int  # steps of the whole training
    prior: Batches | None = None  # pictures of the class that is to stay as it is
    ranks: Ranks = field(default_factory=Ranks)

    def __post_init__(self) -> None:
        networks = self.trained.networks
        self.conditions = Conditions(networks, kept=not self.plan.trains_text)
        self.parameters = [p for group in self.trained.groups for p in group.parameters]
        plan = self.plan
        self.updates = Updates(
            self.parameters, self.optimizer, self.average,
            share=lambda step: share(plan.schedule, step, self.total, plan.warmup),
            max_norm=plan.max_grad_norm, ranks=self.ranks,
        )  # fmt: skip

    def steps(self, first: int = 0) -> Iterator[TrainStep]:
        """Train from step `first` on. Raises NotFinite where a loss or a gradient is no number."""
        device = self.trained.networks.device

        def gradients(step: int) -> Tensor:
            with _seeded(self.plan.seed, step, self.ranks.rank, device):
                return self.gradients(step)

        yield from self.updates.take(gradients, range(first, self.total))

    def gradients(self, step: int) -> Tensor:
        """The gradients of a step, in the parameters, of this process; its loss, a scalar."""
        self.optimizer.zero_grad(set_to_none=True)
        device = self.trained.networks.device
        total = torch.zeros((), device=device)
        for number in range(step * self.plan.accumulate, (step + 1) * self.plan.accumulate):
            for batches, weight in ((self.batches, 1.0), (self.prior, self.plan.prior_weight)):
                if batches is None:
                    continue
                batch = batches(number).part(self.ranks.rows(self.plan.batch)).to(device)
                # The mean of each set by itself: of both together the smaller would count less.
                loss = self._loss(batch, step) * (weight / self.plan.accumulate)
                loss.backward()
                total += loss.detach()
        return total

    def _loss(self, batch: Batch, step: int) -> Tensor:
        """mean_i w(sigma_i) ||F(c_in x_i, t_i) - raw_i||^2."""
        with autocast(self.trained.networks):
            error = errors(self.trained.networks, self.conditions, self.process, batch)
        weight = min_snr_weight(str(self.plan.prediction_type), batch.sigma, self.plan.min_snr)
        loss = (weight * error).mean()
        if not math.isfinite(loss.item()):
            row = next(i for i, e in enumerate((weight * error).tolist()) if not math.isfinite(e))
            raise NotFinite(
                f"the loss is {error[row].item()} at step {step + 1}, of {batch.names[row]} at "
                f"sigma {batch.sigma[row].item():.4g} (t {batch.t[row].item():g}): take a lower "
                "--lr, or --dtype float32"
            )
        return loss


def errors(networks: Networks, conditions: Conditions, process: Process, batch: Batch) -> Tensor:
    """The squared error of each picture of a batch, [B]."""
    network = partial(said, networks, conditions(batch.texts, batch.told))
    return squared_error(network, process, batch.x0, batch.eps, batch.sigma, batch.t)


def said(networks: Networks, told: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
    """What the UNet says of its input, in float32."""
    _, dtype = placement(networks.unet)
    return networks.unet(x.to(dtype), t, **told).float()


def autocast(networks: Networks) -> AbstractContextManager[object]:
    """Where the model computes in bfloat16 and its weights, being trained, are float32."""
    _, stored = placement(networks.unet)
    if stored == networks.dtype:
        return nullcontext()
    return torch.autocast(networks.device.type, networks.dtype)


def modules_in_training(networks: Networks, training: bool) -> None:
    """Dropout on, or off."""
    for module in networks.modules.values():
        module.train(training)


@contextmanager
def _seeded(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """In here torch's own chance, which is dropout's, comes from the number of the step."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(rng_of(seed, step, NETWORK + 100 * rank).integers(2**63)))
        yield


def checkpointed(module: nn.Module, kinds: Sequence[type[nn.Module]]) -> None:
    """Let these parts of a module compute their activations twice, in place."""
    from torch.utils.checkpoint import checkpoint

    for part in module.modules():
        if isinstance(part, tuple(kinds)):
            part.forward = partial(checkpoint, part.forward, use_reentrant=False)
