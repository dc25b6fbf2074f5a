"""Fresh pictures for a fast machine: drawn, described and answered by workers while it trains.

A GPU takes some 20,000 pictures a second, a core draws 150. So what is drawn stays, as latents on
the device, and the pool that the batches come from grows until the training is over.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from scripts.train.fit import half_where_fast
from scripts.train.pictures import SIZE, to_tensor
from scripts.train.words import LENGTH, answers, encode, vary
from scripts.train.world import Description, caption, draw, sample_description
from sdcore.models import VAE

CAPTIONS = 4  # of each picture
OMIT = 0.3  # of the captions leave out something that can be seen


@dataclass(frozen=True)
class Lessons:
    """Some pictures and all that is said of them."""

    pixels: np.ndarray  # uint8 [N, 128, 128, 3]
    ids: np.ndarray  # int16 [N, CAPTIONS, 77]
    answers: np.ndarray  # int16 [N, questions], as words.answers has them


def description(seed: int, index: int) -> Description:
    """What picture `index` shows: one thing if it is even, two if it is odd."""
    rng = np.random.default_rng([seed, index, 5])
    while len((drawn := sample_description(rng)).things) != 1 + index % 2:
        pass
    return drawn


_tokenizer = cache(Tokenizer.from_file)


def _one_thread() -> None:
    """A worker shares the machine with the others."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def lessons(tokenizer: str, seed: int, start: int, count: int) -> Lessons:
    """Pictures `start` .. `start + count - 1` of `seed`; `tokenizer`: the path of its file."""
    pixels = np.empty((count, SIZE, SIZE, 3), np.uint8)
    texts: list[str] = []
    facts: list[list[int]] = []
    for i in range(count):
        shown, rng = description(seed, start + i), np.random.default_rng([seed, start + i, 6])
        pixels[i] = np.asarray(draw(shown, rng, SIZE))
        texts += [vary(caption(shown, rng, OMIT), rng) for _ in range(CAPTIONS)]
        facts.append(answers(shown))
    ids = encode(_tokenizer(tokenizer), texts).view(count, CAPTIONS, LENGTH)
    return Lessons(pixels, ids.numpy().astype(np.int16), np.array(facts, np.int16))


class Pool:
    """Latents, captions and answers on the device, and how many of them there are."""

    def __init__(self, capacity: int, vae: VAE, device: torch.device):
        def empty(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(capacity, *shape, dtype=dtype, device=device)

        side = SIZE // vae.config.factor
        self.vae, self.capacity, self.size = vae, capacity, 0
        self.mean = empty(vae.config.latent_channels, side, side, dtype=torch.float16)
        self.std = torch.zeros_like(self.mean)
        self.ids = empty(CAPTIONS, LENGTH, dtype=torch.int16)
        self.answers = empty(len(answers(description(0, 0))), dtype=torch.int16)
        self.count = torch.zeros((), device=device)  # where a captured graph finds `size`

    @torch.no_grad()
    def add(self, new: Lessons) -> None:
        """Encode and keep as many as there is room for."""
        kept = min(len(new.pixels), self.capacity - self.size)
        rows, device = slice(self.size, self.size + kept), self.mean.device
        pixels = torch.from_numpy(new.pixels[:kept]).to(device)
        x = to_tensor(pixels).contiguous(memory_format=torch.channels_last)
        with half_where_fast(device.type):
            code = self.vae.encode(x)
        self.mean[rows], self.std[rows] = code.mean, code.std
        self.ids[rows] = torch.from_numpy(new.ids[:kept]).to(device)
        self.answers[rows] = torch.from_numpy(new.answers[:kept]).to(device)
        self.size += kept
        self.count.fill_(self.size)

    def draw(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """A batch by chance: x0 [B,4,16,16], token ids [B,77], answers [B,questions]."""
        device = self.mean.device
        chosen = (torch.rand(batch, device=device) * self.count).clamp(max=self.count - 1).long()
        said = torch.randint(CAPTIONS, (batch,), device=device)
        mean, std = self.mean[chosen].float(), self.std[chosen].float()
        x0 = mean + std * torch.randn_like(mean)
        return x0, self.ids[chosen, said].long(), self.answers[chosen].long()


class Stream:
    """The workers that fill a pool. `pour` takes what they have ready; it never waits."""

    def __init__(self, pool: Pool, tokenizer: Path, seed: int, workers: int, chunk: int):
        self.pool, self.chunk = pool, chunk
        self._task = str(tokenizer), seed
        # A process that has opened a GPU must not be forked.
        spawn = multiprocessing.get_context("spawn")
        self._workers = ProcessPoolExecutor(workers, spawn, _one_thread)
        self._asked, self._waiting = 0, list[Future[Lessons]]()
        self._ask(2 * workers)

    def _ask(self, times: int) -> None:
        for _ in range(times):
            if self._asked < self.pool.capacity:
                job = self._workers.submit(lessons, *self._task, self._asked, self.chunk)
                self._waiting.append(job)
                self._asked += self.chunk

    def pour(self, most: int = 4) -> None:
        """Add up to `most` chunks that are ready."""
        ready = [job for job in self._waiting if job.done()][:most]
        for job in ready:
            self._waiting.remove(job)
            self.pool.add(job.result())
        self._ask(len(ready))

    def wait(self, count: int) -> None:
        """Until the pool holds `count` pictures."""
        while self.pool.size < count:
            self.pour()
            time.sleep(0.01)

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)
