"""How the three networks are trained: AdamW, warm-up and cosine, EMA, resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from sdcore.training.optimizer import Average
from sdcore.training.updates import Updates


@dataclass(frozen=True)
class Schedule:
    """How one network is trained. `flat`: the share of steps before the cosine begins."""

    steps: int
    lr: float
    warmup: int = 100
    flat: float = 0.4
    weight_decay: float = 0.01
    ema: float = 0.0  # 0: none
    save_every: float = 120.0  # seconds

    def share(self, step: int) -> float:
        """The share of the learning rate at `step`."""
        return rate(step / self.steps, step, self.warmup, self.flat)


def rate(done: float, step: int, warmup: int, flat: float) -> float:
    """The share of the learning rate: linear warm-up, flat, half a cosine down to 1 %.

    done: how much of the training is over, 0 to 1. warmup: in steps; flat: a share of the training.
    """
    ramp = min(1.0, (step + 1) / warmup)
    tail = max(0.0, (done - flat) / (1 - flat))
    return ramp * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * tail)))


def half_where_fast(device: str) -> torch.autocast:
    """bfloat16, except on a CPU without instructions for it, which is 10 times slower in it."""
    fast = device != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast(device, torch.bfloat16, enabled=fast)


def fit(
    model: nn.Module,
    loss: Callable[[int], tuple[Tensor, str]],
    schedule: Schedule,
    checkpoint: Path,
) -> None:
    """Train `model` in place; with an EMA, it ends as the average.

    Args:
        model: on its device; parameters float32.
        loss: step number -> (scalar, a word for the progress bar). All its chance must come from
            the step number, so that an interrupted run goes on as if it had not been.
        schedule: steps, rates, EMA.
        checkpoint: written every `save_every` seconds, read when it exists.
    """
    params = list(model.parameters())
    decayed = [p for p in params if p.ndim > 1]
    plain = [p for p in params if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": schedule.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.99), fused=True)
    average = Average(params, schedule.ema)
    updates = Updates(params, optimizer, average, share=schedule.share)
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=params[0].device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average.values, first = saved["average"], saved["step"]
    word = ""

    def save(step: int) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        partial = checkpoint.with_suffix(".partial")
        torch.save(state | {"average": average.values, "step": step}, partial)
        partial.rename(checkpoint)

    device, last_saved, smooth = params[0].device.type, time.monotonic(), None

    def gradients(step: int) -> Tensor:
        nonlocal word
        # The backward of fused attention in bfloat16 is slow on a CPU: written-out softmax
        # takes a UNet step from 1.12 s to 0.6 s there.
        with half_where_fast(device), sdpa_kernel(SDPBackend.MATH):
            value, word = loss(step)
        optimizer.zero_grad()
        value.backward()
        return value.detach()

    log = checkpoint.with_suffix(".log").open("a")
    taken = updates.take(gradients, range(first, schedule.steps))
    bar = tqdm(taken, initial=first, total=schedule.steps, disable=None)
    bar.set_description(checkpoint.stem)
    done = first
    try:
        for update in bar:
            step, done = done, update.step
            smooth = update.loss if smooth is None else 0.98 * smooth + 0.02 * update.loss
            bar.set_postfix_str(f"{smooth:.4f} {word}", refresh=False)
            if step % 50 == 0 or step == schedule.steps - 1:
                print(step, f"{time.time():.0f} {smooth:.5f}", word, file=log, flush=True)
            if time.monotonic() - last_saved > schedule.save_every:
                save(done)
                last_saved = time.monotonic()
    except KeyboardInterrupt:
        save(done)
        raise
    if first < schedule.steps:
        save(schedule.steps)
    log.close()
    average.keep()
