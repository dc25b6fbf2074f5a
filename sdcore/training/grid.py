"""The loss where nothing is left to chance: the same pictures, noise and noise levels each time.

The loss of a step says little: it is ten times larger at one noise level than at another, and a
step's level is drawn. On a fixed grid of (eps, sigma) two measurements can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdcore.networks import Networks
from sdcore.process import Process
from sdcore.schedulers.flow_schedule import Schedule
from sdcore.training.batches import Batch, told_of
from sdcore.training.conditions import Conditions
from sdcore.training.latents import Item
from sdcore.training.order import GRID, torch_rng_of
from sdcore.training.steps import autocast, modules_in_training, said

MOST = 4  # pictures


@dataclass(frozen=True)
class Measured:
    """On the grid, by noise level."""

    sigmas: tuple[float, ...]
    loss: tuple[float, ...]  # the mean squared error, not weighted
    change: tuple[float, ...]  # of what the network says: RMS, as a share of what it said before


def grid_of(items: Sequence[Item], schedule: Schedule, levels: int, seed: int) -> list[Batch]:
    """Up to `MOST` pictures of the data at each of some noise levels, with noise of their own."""
    every = max(1, len(items) // MOST)
    batches = []
    for i, item in enumerate(items[::every][:MOST]):
        generator = torch_rng_of(seed, i, GRID)
        eps = torch.randn(levels, *item.mean.shape[1:], generator=generator)
        rows = [int((k + 0.5) / levels * len(schedule)) for k in range(levels)]
        sigmas = [schedule.sigmas[row] for row in rows]
        batches.append(
            Batch(
                x0=item.mean[:1].expand(levels, -1, -1, -1),
                eps=eps,
                sigma=torch.tensor(sigmas),
                t=torch.tensor([schedule.timestep(sigma) for sigma in sigmas]),
                texts=(item.example.captions[0],) * levels,
                told=(told_of(item),) * levels,
                names=(str(item.example.path),) * levels,
            )
        )
    return batches


@dataclass(frozen=True)
class Grid:
    """A grid, and what the network said on it before it was trained."""

    batches: Sequence[Batch]
    process: Process
    before: Sequence[Tensor] = ()  # [levels,C,h,w] of each batch

    def begun(self, networks: Networks) -> Grid:
        """This grid, remembering what these networks say."""
        return replace(self, before=[out for out, _ in self._asked(networks)])

    def measure(self, networks: Networks) -> Measured:
        """The error by noise level now, and how far the answers are from those before."""
        losses, changes = [], []
        for (out, error), old in zip(self._asked(networks), self.before, strict=True):
            losses.append(error)
            moved = (out - old).square().mean(dim=(1, 2, 3)).sqrt()
            changes.append(moved / old.square().mean(dim=(1, 2, 3)).sqrt().clamp(min=1e-12))
        loss, change = (torch.stack(x).mean(dim=0).tolist() for x in (losses, changes))
        return Measured(tuple(self.batches[0].sigma.tolist()), tuple(loss), tuple(change))

    @torch.no_grad()
    def _asked(self, networks: Networks) -> list[tuple[Tensor, Tensor]]:
        """What the network says of each batch, and its squared error [levels], on the CPU."""
        modules_in_training(networks, False)
        conditions, answers = Conditions(networks, kept=True), []
        for batch in self.batches:
            rows = []
            for i in range(len(batch.x0)):  # one at a time: no more memory than a step
                one = batch.part(slice(i, i + 1)).to(networks.device)
                sigma = one.sigma.view(-1, 1, 1, 1)
                told = conditions(one.texts, one.told)
                x = (one.x0 + sigma * one.eps) * self.process.c_in(sigma)
                with autocast(networks):
                    out = said(networks, told, x, one.t)
                error = (out - self.process.raw(one.x0, one.eps, sigma)).square().mean()
                rows.append((out.cpu(), error.cpu()))
            outs, errors = zip(*rows, strict=True)
            answers.append((torch.cat(outs), torch.stack(errors)))
        modules_in_training(networks, True)
        return answers
