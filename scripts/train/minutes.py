"""Minutes on a GPU: the model goes on, and is then taught to draw in four steps and in two twins.

What is learned, one after the other, each within its share of the time:

1. UNet and text encoder go on as they were trained, on fresh pictures, half of them of two things.
2. Four steps: a LoRA under which a step of Euler's without guidance does what the new model does
   guided in four steps of DPM++ 2M (progressive distillation in one go; Salimans & Ho 2022).
3. Twins, as LoRAs of the new UNet: v-prediction whose last timestep is pure noise (Lin et al. 2024)
   and flow matching (Lipman et al. 2023), for comparing what a network may be asked for.
"""

from __future__ import annotations

import copy
import importlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

import sdcore
from scripts.train.denoiser import weight
from scripts.train.export import export
from scripts.train.lowrank import LowRank
from scripts.train.sprint import Sprint, half, lowered, sprint
from scripts.train.stream import Pool, Stream
from scripts.train.words import FILLING, Reader, encode
from sdcore.denoiser import Denoiser
from sdcore.guidance import CFG
from sdcore.models import TextEncoder, UNet
from sdcore.process import Process, RectifiedFlow, VariancePreserving
from sdcore.sampling import sample
from sdcore.schedulers import resolve
from sdcore.schedulers.noise_schedule import (
    SD_PROCESS,
    STABLE_DIFFUSION,
    NoiseSchedule,
    make_betas,
    zero_terminal_snr,
)
from sdcore.training.loss import squared_error

SEED = 4_000  # of the fresh pictures: neither the first training's nor the examiner's
WRITING = 3.0  # seconds that are left for it at the end
FEW, SUBSTEPS, SCALE = 4, 4, 5.0  # steps to learn, the teacher's in each of them, its guidance


STAGES = {"unet": 0.58, "few-steps": 0.2, "v": 0.11, "flow": 0.11}  # and their shares of the time


@dataclass(frozen=True)
class Amount:
    """How much of everything."""

    capacity: int = 300_000  # pictures
    first: int = 6_000  # so many must be there before training begins
    chunk: int = 200  # pictures that a worker draws at a time
    batch: int = 256
    lr: float = 1e-3
    lr_lora: float = 1.5e-3
    rank_few: int = 16
    rank_twin: int = 32
    paths: int = 1_536  # drawn by the teacher at a time
    graph: bool = True  # of a step, on CUDA


TRIAL = Amount(capacity=64, first=16, chunk=8, batch=2, paths=2)


# What a network is asked for


@dataclass(frozen=True)
class Task:
    """A process, and how its noise levels are drawn and weighed.

    levels: u in [0, 1) [B] -> sigma and the process's t, [B] both. weight: of a squared error, by
    the signal-to-noise ratio 1 / sigma^2.
    """

    process: Process
    levels: Callable[[Tensor], tuple[Tensor, Tensor]]
    weight: Callable[[Tensor], Tensor]


def diffusion(prediction_type: str, device: torch.device) -> Task:
    """SD's own noise schedule: eps, or v on a table whose last timestep is pure noise."""
    betas, v = make_betas("scaled_linear", 0.00085, 0.012, 1000), prediction_type == "v_prediction"
    schedule = NoiseSchedule.from_betas(zero_terminal_snr(betas), 2**-24) if v else STABLE_DIFFUSION
    sigmas = torch.tensor(schedule.sigmas, device=device)

    def levels(u: Tensor) -> tuple[Tensor, Tensor]:
        t = (u * len(sigmas)).long().clamp(max=len(sigmas) - 1)
        return sigmas[t], t

    process = VariancePreserving(schedule, prediction_type)
    if v:
        return Task(process, levels, lambda snr: _x0(snr) / (1 + snr))
    return Task(process, levels, lambda snr: weight(snr, most=15))


def flow() -> Task:
    """The straight path, its time s spread evenly; the last hundredth of a percent is left out."""

    def levels(u: Tensor) -> tuple[Tensor, Tensor]:
        s = 0.9999 * (1 - u)
        return s / (1 - s), 1000 * s

    return Task(RectifiedFlow(), levels, lambda snr: _x0(snr) / (1 + snr.sqrt()) ** 2)


def _x0(snr: Tensor) -> Tensor:
    """The weight of a squared error in x0: 1 where noise prevails, and min-SNR-5 from there on."""
    return snr.clamp(1, 5)


def loss_of(
    task: Task, unet: UNet, x0: Tensor, context: Tensor, weights: dict[str, Tensor] | None = None
) -> Tensor:
    """The weighted squared error of a batch, its noise levels spread evenly."""
    batch = len(x0)
    u = (torch.arange(batch, device=x0.device) + torch.rand(batch, device=x0.device)) / batch
    sigma, t = task.levels(u)
    network = partial(lowered, unet, weights)
    error = squared_error(
        lambda x, t: network(x, t, context), task.process, x0, torch.randn_like(x0), sigma, t
    )
    return (task.weight(sigma**-2) * error).mean()


# The stages


def go_on(
    unet: UNet,
    text: TextEncoder,
    empty: Tensor,
    stream: Stream,
    amount: Amount,
    seconds: float,
    save: Callable[[], None],
) -> None:
    """Train UNet and text encoder, in place. empty: token ids of the empty caption, [77]."""
    pool, device = stream.pool, empty.device
    task, reader = diffusion("epsilon", device), Reader(text).to(device)

    def loss() -> Tensor:
        x0, ids, answers = pool.draw(amount.batch)
        told = torch.rand(amount.batch, device=device) >= 0.1
        ids = torch.where(told[:, None], ids, empty)
        context = lowered(text, None, ids).last
        later = torch.randint(FILLING, (amount.batch,), device=device)
        doubt, _ = reader.grade(ids, context.float(), answers, later)
        return loss_of(task, unet, x0, context) + 0.003 * (doubt * told).sum() / amount.batch

    both = nn.ModuleDict({"unet": unet, "reader": reader})  # the reader holds the text encoder
    plan = Sprint(seconds, amount.lr, graph=amount.graph)
    sprint("unet", both, loss, plan, stream.pour, save)


@dataclass(frozen=True)
class Paths:
    """The teacher's paths at the noise levels of `FEW` steps: x [N, FEW + 1, 4, 16, 16]."""

    x: Tensor
    ids: Tensor  # [N, 77]
    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]


@torch.no_grad()
def teach(
    unet: UNet, text: TextEncoder, empty: Tensor, pool: Pool, count: int, seconds: float
) -> Paths:
    """Draw as many guided pictures as the time allows, `count` at a time."""
    begin, xs, spoken = time.monotonic(), list[Tensor](), list[Tensor]()
    few = resolve("euler", "trailing").plan(FEW)
    scheduler = resolve("dpmpp_2m", "trailing")
    plan = scheduler.plan(FEW * SUBSTEPS)
    assert plan.sigmas[::SUBSTEPS] == few.sigmas
    dtype = half(pool.mean.device)
    teacher = copy.deepcopy(unet).to(dtype)
    while not xs or time.monotonic() - begin < seconds:
        x0, ids, _ = pool.draw(count)
        told, untold = (text(each).last.to(dtype) for each in (ids, empty.expand(count, -1)))
        branches = {"cond": {"context": told}, "uncond": {"context": untold}}
        denoise = Denoiser(teacher, VariancePreserving(plan), branches, CFG(SCALE), dtype)
        start = torch.randn_like(x0) * plan.start_scale
        steps = list(sample(denoise, start, plan.sigmas, scheduler.solver))
        kept = [step.x for step in steps[::SUBSTEPS]] + [steps[-1].x_next]
        xs.append(torch.stack(kept, dim=1))
        spoken.append(ids)
    timesteps = tuple(few.timestep(sigma) for sigma in few.sigmas[:-1])
    return Paths(torch.cat(xs), torch.cat(spoken), few.sigmas, timesteps)


def learn_few(
    unet: UNet, text: TextEncoder, paths: Paths, amount: Amount, seconds: float, file: Path
) -> None:
    """A LoRA whose eps takes Euler's step to where the teacher's path goes; unguided."""
    change, device = LowRank(unet, amount.rank_few), paths.x.device
    sigmas = torch.tensor(paths.sigmas, device=device)
    timesteps = torch.tensor(paths.timesteps, device=device)
    # The error of the next state in the network's own form, which has unit variance.
    worth = sigmas.diff().square() / (1 + sigmas[1:].square())

    def loss() -> Tensor:
        rows = (torch.rand(amount.batch, device=device) * len(paths.x)).long()
        i = torch.arange(amount.batch, device=device) % FEW
        x, x_next = paths.x[rows, i], paths.x[rows, i + 1]
        sigma, sigma_next = (s.view(-1, 1, 1, 1) for s in (sigmas[i], sigmas[i + 1]))
        with torch.no_grad():
            context = lowered(text, None, paths.ids[rows]).last
        x_in = x * SD_PROCESS.c_in(sigma)
        eps = lowered(unet, change.weights(), x_in, timesteps[i], context).float()
        error = eps - (x_next - x) / (sigma_next - sigma)
        return (worth[i] * error.square().mean(dim=(1, 2, 3))).mean()

    plan = Sprint(seconds, amount.lr_lora, 100, ema=0.998, graph=amount.graph)
    sprint("few steps", change, loss, plan)
    change.write(file)


def learn_twin(
    name: str,
    task: Task,
    unet: UNet,
    text: TextEncoder,
    empty: Tensor,
    stream: Stream,
    amount: Amount,
    seconds: float,
    file: Path,
) -> None:
    """A LoRA that makes the UNet say something else; the text encoder stays."""
    change = LowRank(unet, amount.rank_twin)

    def loss() -> Tensor:
        x0, ids, _ = stream.pool.draw(amount.batch)
        told = torch.rand(amount.batch, device=x0.device) >= 0.1
        with torch.no_grad():
            context = lowered(text, None, torch.where(told[:, None], ids, empty)).last
        return loss_of(task, unet, x0, context, change.weights())

    plan = Sprint(seconds, amount.lr_lora, 100, ema=0.998, graph=amount.graph)
    sprint(name, change, loss, plan, stream.pour)
    change.write(file)


# All of it


def run(
    start: Path,
    out: Path,
    device: torch.device,
    seconds: float,
    stages: Sequence[str],
    amount: Amount,
) -> None:
    """Train for `seconds` from the model in `start`; write the model to `out`, LoRAs beside it.

    `out` is written now and then, so that something is there if the time is cut short.
    """
    begin = time.monotonic()
    torch.manual_seed(SEED)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    model = sdcore.load(str(start), device=str(device), dtype="float32")
    unet, text = model.unet.to(memory_format=torch.channels_last), model.text_encoder
    file = start / "tokenizer" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    empty = encode(tokenizer, [""])[0].to(device)
    out.parent.mkdir(parents=True, exist_ok=True)
    pool = Pool(amount.capacity, model.vae.to(memory_format=torch.channels_last), device)
    stream = Stream(pool, file, SEED, max(1, (os.cpu_count() or 1) - 2), amount.chunk)

    def trainable(yes: bool) -> None:
        for module in (unet, text):
            module.train(yes).requires_grad_(yes)

    def save() -> None:
        export(out, unet, model.vae, text, tokenizer)

    # torch.optim imports it when first used, which takes seconds: now, while the workers start.
    importlib.import_module("torch._dynamo")
    try:
        stream.wait(amount.first)
        for i, stage in enumerate(stages):
            over = time.monotonic() - begin
            print(f"{stage}: {over:.1f} s are over, {pool.size} pictures there", flush=True)
            shares = [STAGES[each] for each in stages[i:]]
            time_for = (seconds - over - WRITING) * shares[0] / sum(shares)
            beside = out.parent / f"{out.name}-{stage}.safetensors"
            trainable(stage == "unet")
            if stage == "unet":
                go_on(unet, text, empty, stream, amount, time_for, save)
                save()
            elif stage == "few-steps":
                paths = teach(unet, text, empty, pool, amount.paths, 0.35 * time_for)
                print(f"{stage}: {len(paths.x)} guided paths", flush=True)
                learn_few(unet, text, paths, amount, 0.65 * time_for, beside)
            else:
                task = flow() if stage == "flow" else diffusion("v_prediction", device)
                learn_twin(stage, task, unet, text, empty, stream, amount, time_for, beside)
    finally:
        stream.close()
    print(f"done after {time.monotonic() - begin:.1f} s", flush=True)
