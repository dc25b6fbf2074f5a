"""Several processes that train together, as torchrun starts them: each on rows of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among all of them. Alone it is the first of one."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """Its own of a whole batch of `count` times `batch` rows."""
        return slice(self.rank * batch, (self.rank + 1) * batch)

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every gradient becomes the mean over all processes, in place."""
        if self.count > 1:
            for parameter in parameters:
                grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                dist.all_reduce(grad)
                parameter.grad = grad / self.count

    def mean(self, number: Tensor) -> Tensor:
        """A number's mean over all processes."""
        if self.count > 1:
            dist.all_reduce(number := number.clone())
            number = number / self.count
        return number

    def any(self, yes: bool, device: torch.device) -> bool:
        """Whether it is so in any process."""
        if self.count == 1:
            return yes
        flag = torch.tensor(float(yes), device=device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()

    def close(self) -> None:
        if self.count > 1:
            dist.destroy_process_group()


def launched() -> tuple[int, int, int] | None:
    """Rank, count and rank on this machine, where torchrun started this process; else None."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(os.environ.get(name, "").isdigit() for name in names):
        return None
    rank, count, local = (int(os.environ[name]) for name in names)
    return (rank, count, local) if count > 1 else None


def join(device: str | None) -> tuple[Ranks, str | None]:
    """This process among those that torchrun started, and its device; alone, `device` as it is."""
    place = launched()
    if place is None:
        return Ranks(), device
    rank, count, local = place
    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo")
    return Ranks(rank, count), f"cuda:{local}" if cuda else device
