"""Several processes that train together, as torchrun starts them: each on rows of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sdcore.errors import InputError
from sdcore.free_memory import is_out_of_memory


class ToldByFirst(InputError):
    """What went wrong, in a process that is not the first: the first one says it."""


@dataclass(frozen=True)
class Ranks:
    """This process among all of them. Alone it is the first of one."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

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

    def any(self, yes: bool) -> bool:
        """Whether it is so in any process."""
        if self.count == 1:
            return yes
        flag = torch.tensor(float(yes), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    @contextmanager
    def together(self) -> Iterator[None]:
        """All are done with what is in here before any goes on, or none of them does.

        Whoever went on alone would wait for the others without an end. An InputError, and too
        little memory, of one process are raised in all of them; in all but the first an InputError
        is `ToldByFirst`.
        """
        if self.count == 1:
            yield
            return
        problem: InputError | MemoryError | None = None
        try:
            yield
        except InputError as error:
            problem = error
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            problem = MemoryError(str(error))  # without a traceback, which holds on to tensors
        if not self.any(problem is not None):
            return
        problems: list[InputError | MemoryError | None] = [None] * self.count
        dist.all_gather_object(problems, problem)
        first = next(each for each in problems if each is not None)
        raise first if self.first or isinstance(first, MemoryError) else ToldByFirst(str(first))

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
    here = f"cuda:{local}" if cuda else "cpu"
    return Ranks(rank, count, here), here if cuda else device
