"""What a step costs beside the network: `python -m scripts.host_time`.

Scheduler and guidance (CFG 7.5) around a stub that answers at once with the same tensor, 1x4x64x64
float32 on the CPU. Both engines run in turns in one process; medians over the rounds, of CPU time,
so that whatever else the machine does is not counted. What is computed once (the plan,
set_timesteps) is not in it. "Tensors alone" is the same loop's tensor operations with nothing
around them.

The C library is told to keep freed memory, as it does beside a real network: else it hands a few
pages back and asks for them again in every step, which takes longer than the step.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import diffusers
import torch

from sdcore.denoiser import Denoiser
from sdcore.guidance import CFG
from sdcore.noise import SeededNoise
from sdcore.process import VariancePreserving
from sdcore.sampling import sample
from sdcore.schedulers import TABLE, resolve
from sdcore.schedulers.config import SD15
from sdcore.schedulers.solvers.integrals import combine

SHAPE = (4, 64, 64)
SCALE = 7.5
TARGETS = {"euler": 1 / 3, "dpmpp_2m": 1 / 10, "unipc": 1 / 10}


def ours(name: str, steps: int, out: torch.Tensor) -> Callable[[], None]:
    """One whole loop of sdcore, ready to be timed."""
    scheduler = resolve(name, "leading")
    plan = scheduler.plan(steps)
    noise = SeededNoise((0,), SHAPE)
    told = {name: {"context": torch.zeros(1, 1, 1)} for name in ("uncond", "cond")}
    process = VariancePreserving(plan, scheduler.prediction_type)
    denoise = Denoiser(lambda x, t, context: out, process, told, CFG(SCALE))
    x = noise.start() * plan.start_scale

    def run() -> None:
        for _ in sample(denoise, x, plan.sigmas, scheduler.solver, noise):
            pass

    return run


def theirs(class_name: str, steps: int, out: torch.Tensor) -> Callable[[], None]:
    """The same as a diffusers pipeline does it. `set_timesteps` comes first, and is not timed."""
    scheduler: Any = getattr(diffusers, class_name).from_config(
        {**SD15, "timestep_spacing": "leading"}
    )
    options = {}
    if "generator" in scheduler.step.__code__.co_varnames:
        options["generator"] = [torch.Generator().manual_seed(0)]
    noise = torch.randn(1, *SHAPE)

    def run() -> None:
        latents = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            joined = scheduler.scale_model_input(torch.cat([latents] * 2), t)  # noqa: F841
            uncond, cond = out.chunk(2)
            guided = uncond + SCALE * (cond - uncond)
            latents = scheduler.step(guided, t, latents, **options, return_dict=False)[0]

    scheduler.set_timesteps(steps)
    run.prepare = lambda: scheduler.set_timesteps(steps)  # type: ignore[attr-defined]
    return run


def bare(name: str, steps: int, out: torch.Tensor) -> Callable[[], None] | None:
    """The tensor operations of a step, one after the other: what no loop in torch does without."""
    x, past = torch.randn(1, *SHAPE), torch.randn(1, *SHAPE)
    ends: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "euler": lambda x0, eps: torch.add(x0, eps, alpha=0.9),
        "dpmpp_2m": lambda x0, eps: torch.lerp(torch.lerp(past, x0, 1.4), x, 0.9),
        "unipc": lambda x0, eps: combine(x * 0.9, (0.2, 0.1, -0.1), (x0, past, past)),
    }
    if name not in ends:
        return None

    def run() -> None:
        for _ in range(steps):
            torch.cat([x * 0.9] * 2)
            uncond, cond = out.chunk(2)
            eps = torch.lerp(uncond, cond, SCALE)
            ends[name](torch.add(x, eps, alpha=-0.9), eps)

    return run


def seconds(run: Any) -> float:
    getattr(run, "prepare", lambda: None)()
    begun = time.process_time()
    run()
    return time.process_time() - begun


def keep_freed_memory() -> None:
    """glibc's mallopt: M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD. Elsewhere nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for parameter, size in ((-1, 2**30), (-2, 2**26), (-3, 2**30)):
        if mallopt is not None:
            mallopt(parameter, size)


@click.command()
@click.option("--steps", default=50, show_default=True)
@click.option("--rounds", default=15, show_default=True)
@click.argument("names", nargs=-1)
@torch.inference_mode()
def main(steps: int, rounds: int, names: tuple[str, ...]) -> None:
    """Print microseconds a step for NAMES, or for every scheduler that diffusers has too.

    Also an evaluation of the network, of which a step of some solvers takes several.
    """
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    keep_freed_memory()
    out = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    print(f"diffusers {diffusers.__version__}, torch {torch.__version__}, one thread\n")
    heads = ("an evaluation", "tensors alone", "diffusers", "ratio", "wanted")
    print(f"| scheduler | sdcore, us a step | {' | '.join(heads)} |")
    print("|---|---|---|---|---|---|---|")
    for entry in TABLE:
        chosen = entry.name in names if names else entry.class_name in entry.labels
        if not chosen or entry.class_name == "DPMSolverSDEScheduler":  # which needs torchsde
            continue
        runs = {"ours": ours(entry.name, steps, out), "alone": bare(entry.name, steps, out)}
        if entry.class_name in entry.labels:
            runs["theirs"] = theirs(entry.class_name, steps, out)
        times: dict[str, list[float]] = {who: [] for who, run in runs.items() if run is not None}
        for number in range(rounds + 2):
            for who, taken in times.items():
                spent = seconds(runs[who])
                if number >= 2:  # the first two warm up
                    taken.append(spent / steps * 1e6)
        found = {who: statistics.median(taken) for who, taken in times.items()}
        a, b = found["ours"], found.get("theirs")
        cells = [entry.name, f"{a:.0f}", f"{a / entry.nfe:.0f}"]
        cells += [f"{found[who]:.0f}" if who in found else "" for who in ("alone", "theirs")]
        cells += ["" if b is None else f"{a / b:.2f}"]
        cells += [f"{TARGETS[entry.name]:.2f}" if entry.name in TARGETS else ""]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
