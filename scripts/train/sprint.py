"""A training loop that ends by the clock, its step replayed as one CUDA graph.

A step of a network this small is a thousand short kernels, which a host cannot launch as fast as a
GPU runs them. A captured graph launches them at once; so a step may hold nothing that the host must
decide, and its chance comes from the device's own generator. That is why the updates are not
`sdcore.training.updates`, which looks at every gradient before it lets it act.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from scripts.train.fit import rate

LOOK = 25  # steps between two looks at the loss, which wait for the device
TELL = 5.0  # seconds between two lines


@dataclass(frozen=True)
class Sprint:
    """How one network is trained. `flat`: the share of the time before the cosine begins."""

    seconds: float
    lr: float
    warmup: int = 300  # steps
    flat: float = 0.25
    weight_decay: float = 0.01
    ema: float = 0.999
    graph: bool = True  # capture the step, where there is CUDA


def half(device: torch.device) -> torch.dtype:
    """What networks compute in: bfloat16, but on a CPU without instructions for it."""
    fast = device.type != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def lowered(network: nn.Module, weights: Mapping[str, Tensor] | None, *inputs: Tensor) -> Any:
    """`network(*inputs)` in `half`, with gradients to the weights, which stay float32.

    weights: others than the network's own. inputs: of two dimensions and more they are lowered too,
    a timestep is not. Autocast would do the same, but norms in float32: twice the memory traffic,
    which is what a step takes its time for.
    """
    weights = dict(network.named_parameters()) if weights is None else weights
    dtype = half(inputs[0].device)
    lower = [x.to(dtype) if x.is_floating_point() and x.ndim > 1 else x for x in inputs]
    return functional_call(network, {k: w.to(dtype) for k, w in weights.items()}, tuple(lower))


def captured(step: Callable[[], None], device: torch.device) -> Callable[[], object]:
    """`step` as a replay of a CUDA graph; it runs three times before, as torch asks for."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def sprint(
    name: str,
    model: nn.Module,
    loss: Callable[[], Tensor],
    plan: Sprint,
    between: Callable[[], None] = lambda: None,
    save: Callable[[], None] = lambda: None,
    save_every: float = 45.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Train what of `model` has gradients, in place, until the time is up; it ends as the average.

    Args:
        loss: a scalar on the model's device, made without anything that the host must wait for.
        between: called every `LOOK` steps.
        save: called every `save_every` seconds, with the average in the model.
        clock: seconds, from any beginning.

    A loss that is no number ends it, with the average as it was at the last look.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    device = params[0].device
    lr, total = torch.zeros((), device=device), torch.zeros((), device=device)
    optimizer = _optimizer(params, lr, plan.weight_decay)
    begin = clock()
    average = [p.detach().clone() for p in params]
    backends = [SDPBackend.MATH]  # the others' backward is slow in bfloat16 on a CPU
    if device.type == "cuda":
        backends += [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with sdpa_kernel(backends):
            value = loss()
            value.backward()
        nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1 - plan.ema)
            total.add_(value)

    run = captured(step, device) if plan.graph and device.type == "cuda" else step
    print(f"{name}: ready after {clock() - begin:.1f} s", flush=True)
    total.zero_()
    steps, good = 0, [p.clone() for p in average]
    told, saved = (0, clock()), clock()
    while (now := clock()) - begin < plan.seconds:
        lr.fill_(plan.lr * rate((now - begin) / plan.seconds, steps, plan.warmup, plan.flat))
        run()
        steps += 1
        if steps % LOOK:
            continue
        mean = total.item() / LOOK
        total.zero_()
        if not math.isfinite(mean):
            print(f"{name}: the loss is {mean}; back to the last average", flush=True)
            torch._foreach_copy_(average, good)
            break
        torch._foreach_copy_(good, average)
        between()
        if (now := clock()) - told[1] > TELL:
            pace = (steps - told[0]) / (now - told[1])
            print(f"{name} {now - begin:.0f} s: step {steps}, {pace:.1f}/s, loss {mean:.5f}")
            told = steps, now
        if now - saved > save_every:
            with _swapped(params, average):
                save()
            saved = clock()
    with torch.no_grad():
        torch._foreach_copy_(params, average)
    print(f"{name}: {steps} steps in {clock() - begin:.1f} s", flush=True)


def _optimizer(params: list[nn.Parameter], lr: Tensor, decay: float) -> torch.optim.AdamW:
    """AdamW whose rate is a tensor, so that a captured graph reads it anew each step."""
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    cuda = lr.device.type == "cuda"
    return torch.optim.AdamW(
        groups, lr=lr, betas=(0.9, 0.99), fused=cuda, foreach=False, capturable=cuda
    )


@contextmanager
def _swapped(params: list[nn.Parameter], values: list[Tensor]) -> Iterator[None]:
    """Other values in the same memory: a captured graph knows its tensors by their addresses."""
    with torch.no_grad():
        kept = [p.clone() for p in params]
        torch._foreach_copy_(params, values)
        yield
        torch._foreach_copy_(params, kept)
