"""sdcore against diffusers on one model: `python -m scripts.benchmark`.

    python -m scripts.benchmark                                    # the bundled model, float32
    python -m scripts.benchmark --dtype bfloat16 --compile --json all.json --markdown all.md
    python -m scripts.benchmark --model FOLDER --size 512 --steps 4 --batch 4

Each engine runs in a process of its own, in turns, so that none profits from another's caches nor
from a quiet minute. Every round gives one ratio to diffusers as it comes; the table shows their
median and how far they spread, which a noisy machine changes little. All draw the same pictures
from the same noise (DPM++ 2M on leading steps, guided), and in the same run it is checked that they
are right: float32 within 1e-5 of diffusers' a forward and the same picture, halves no farther from
diffusers' float32 than diffusers' own.

sdcore fast: as the command line draws. plain: `--engine plain`. diffusers tuned: channels-last and
fused projections. compiled: torch.compile of UNet and decoder, with frozen weights; its minutes
count in the rows that begin with the process.

`--busy` tells the time that the processor worked for a process, in place of the time that went by:
where ten others want two cores, the latter is mostly theirs.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from scripts.load_benchmark import with_bytecode

OURS, THEIRS = ("sdcore fast", "sdcore plain"), ("diffusers", "diffusers tuned")
COMPILED, BASE = "diffusers compiled", "diffusers"
ROWS = {  # what is measured: (label, unit, scale)
    "ready": ("process start to model ready", "s", 1.0),
    "picture": ("process start to first picture", "s", 1.0),
    "step": ("one guided step, warm", "ms", 1e3),
    "decode": ("decoding one picture, warm", "ms", 1e3),
    "peak": ("peak memory of the process", "MB", 1.0),
}
PROMPT, SEED, CFG = "a red house at sunset", 0, 7.5
CLOSE, NO_FARTHER = 1e-5, 1.05  # relative error of a float32 forward; ratio of halves' errors


@dataclass(frozen=True)
class Job:
    """What every engine is asked for."""

    model: str
    steps: int
    size: int | None  # pixels of a side; None: the model's own
    batch: int
    dtype: str


@dataclass
class Times:
    """When what was done, by a clock of seconds that runs since the process was begun."""

    clock: Callable[[], float]
    marks: dict[str, list[float]] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        self.marks.setdefault(name, []).append(self.clock())

    def timed(self, name: str, function: Callable[[], Any], count: int = 5) -> None:
        """The median of some calls, after one that warms."""
        function()
        taken = []
        for _ in range(count):
            begun = self.clock()
            function()
            taken.append(self.clock() - begun)
        self.marks[name] = [statistics.median(taken)]


def forward_inputs(unet: Any, dtype: Any) -> tuple[Any, Any]:
    """x [2,4,s,s] and a context for the check, the same for every engine."""
    import torch

    rng = torch.Generator().manual_seed(5)
    side = unet.config.sample_size
    x = torch.randn(2, unet.config.in_channels, side, side, generator=rng)
    return x.to(dtype), torch.randn(2, 77, unet.config.cross_attention_dim, generator=rng).to(dtype)


def run_sdcore(engine: str, job: Job, times: Times) -> tuple[Any, Any]:
    import sdcore

    sdcore.tune_allocator()
    sd = sdcore.load(job.model, device="cpu", dtype=job.dtype)
    sd = replace(sd, engine="plain" if engine == "sdcore plain" else "auto")
    times.mark("ready")

    def draw() -> Any:
        run = sd.prepare(
            PROMPT,
            seeds=range(SEED, SEED + job.batch),
            scheduler="dpmpp_2m",
            spacing="leading",
            steps=job.steps,
            cfg=CFG,
            width=job.size,
            height=job.size,
        )
        with run.without_gradients():
            for step in run:
                x = step.x_next
                times.mark("step")
            return run.decode(x)[0], x

    picture, x = draw()
    times.mark("picture")
    draw()
    import torch

    from sdcore.engine import ready, ready_decoder

    with torch.inference_mode():
        decode = ready_decoder(sd.vae, sd.engine)
        times.timed("decode", lambda: decode(x[:1].to(sd.vae.dtype)))
        asked, context = forward_inputs(sd.unet, sd.dtype)
        out = ready(sd.unet, [500.0], sd.engine)(asked, 500.0, context)
    return picture, out


def run_diffusers(engine: str, job: Job, times: Times) -> tuple[Any, Any]:
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    from sdcore.checkpoints import find_model

    dtype = getattr(torch, job.dtype)
    pipe = StableDiffusionPipeline.from_pretrained(find_model(job.model), torch_dtype=dtype)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="leading", use_karras_sigmas=False
    )
    pipe.set_progress_bar_config(disable=True)
    if engine != BASE:
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.vae.to(memory_format=torch.channels_last)
        if engine == COMPILED:
            import torch._inductor.config as inductor

            inductor.freezing = True
            pipe.unet = torch.compile(pipe.unet, fullgraph=True)
            pipe.vae.decode = torch.compile(pipe.vae.decode, fullgraph=True)
        else:
            pipe.fuse_qkv_projections()
    times.mark("ready")
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor if job.size is None else job.size

    def after_step(pipe: object, i: int, t: object, kwargs: dict) -> dict:
        times.mark("step")
        return kwargs

    def draw() -> Any:
        seeds = range(SEED, SEED + job.batch)
        return pipe(
            PROMPT,
            width=side,
            height=side,
            num_inference_steps=job.steps,
            guidance_scale=CFG,
            num_images_per_prompt=job.batch,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            callback_on_step_end=after_step,
        ).images[0]

    picture = draw()
    times.mark("picture")
    draw()
    with torch.inference_mode():
        z = torch.randn(1, 4, side // pipe.vae_scale_factor, side // pipe.vae_scale_factor)
        times.timed("decode", lambda: pipe.vae.decode(z.to(dtype)).sample)
        asked, context = forward_inputs(pipe.unet, dtype)
        out = pipe.unet(asked, 500.0, context).sample
    return picture, out


def draw_and_time(engine: str, job: Job, started: float | None, out: Path) -> None:
    """Draw twice, note when; the second picture's steps are warm.

    started: by the clock on the wall; None: the processor's time is told, which begins at 0.
    """
    from safetensors.torch import save_file

    times = Times(time.process_time if started is None else lambda: time.time() - started)
    run = run_sdcore if engine in OURS else run_diffusers
    picture, forward = run(engine, job, times)
    picture.save(out.with_suffix(".png"))
    save_file({"out": forward.float().contiguous()}, out.with_suffix(".safetensors"))
    warm = times.marks["step"][job.steps :]
    gaps = [b - a for a, b in pairwise(warm)] or [warm[0] - times.marks["picture"][0]]
    result = {
        "ready": times.marks["ready"][0],
        "picture": times.marks["picture"][0],
        "step": statistics.median(gaps),
        "decode": times.marks["decode"][0],
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result))


def measure(engine: str, job: Job, out: Path, busy: bool = False) -> dict[str, float]:
    """One fresh process of this engine. busy: timed by the processor's clock, on one thread."""
    command = [sys.executable, "-m", "scripts.benchmark", "--child", engine, "--model", job.model]
    command += ["--steps", str(job.steps), "--batch", str(job.batch), "--dtype", job.dtype]
    command += [] if job.size is None else ["--size", str(job.size)]
    command += ["--out", str(out), *([] if busy else ["--started", repr(time.time())])]
    env = with_bytecode() | ({"OMP_NUM_THREADS": "1"} if busy else {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise click.ClickException(f"{engine} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def difference(a: Path, b: Path) -> int:
    """The largest difference of two pictures, of 255."""
    import numpy as np
    from PIL import Image

    first, second = (np.asarray(Image.open(path)).astype(int) for path in (a, b))
    return int(abs(first - second).max())


def judge(outs: dict[str, Path], truth: Path, dtype: str) -> tuple[dict[str, float], list[str]]:
    """Every engine's relative error of a forward against diffusers' float32; what is wrong."""
    from safetensors.torch import load_file

    right = load_file(truth.with_suffix(".safetensors"))["out"]
    errors, wrong = {}, []
    for engine, path in outs.items():
        out = load_file(path.with_suffix(".safetensors"))["out"]
        errors[engine] = float((out - right).norm() / right.norm())
    for engine in OURS:
        if dtype == "float32" and errors[engine] > CLOSE:
            wrong.append(f"{engine} is {errors[engine]:.1e} from diffusers")
        if dtype != "float32" and errors[engine] > NO_FARTHER * errors[BASE]:
            wrong.append(
                f"{engine} is {errors[engine] / errors[BASE]:.2f} times as far as diffusers"
            )
    if dtype == "float32":
        apart = difference(outs[OURS[0]].with_suffix(".png"), outs[BASE].with_suffix(".png"))
        errors["pictures apart, of 255"] = apart
        if apart > 2:
            wrong.append("the engines did not draw the same picture")
    return errors, wrong


def table(results: dict[str, list[dict[str, float]]]) -> list[str]:
    """Medians, and the ratio to diffusers: its median and its spread over the rounds."""
    lines = ["| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for row, (label, unit, scale) in ROWS.items():
        digits = 2 if unit == "s" else 0 if unit == "MB" else 1
        cells = []
        for engine, rounds in results.items():
            middle = statistics.median(r[row] for r in rounds) * scale
            cell = f"{middle:.{digits}f} {unit}"
            if engine != BASE:
                shares = [r[row] / b[row] for r, b in zip(rounds, results[BASE], strict=True)]
                cell += f", **{statistics.median(shares):.2f}**"
                cell += f" ({min(shares):.2f} to {max(shares):.2f})"
            cells.append(cell)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def heading(job: Job, rounds: int, busy: bool) -> str:
    import torch

    from sdcore.cli.bench import processor

    clock = ", processor time of one thread" if busy else ""
    return (
        f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, Python "
        f"{platform.python_version()}: {job.model}, {job.dtype}, {job.steps} steps of DPM++ 2M, "
        f"{job.batch} at a time, medians of {rounds} rounds{clock}; in bold the ratio to "
        "diffusers as it comes, of the same round (least to most)\n"
    )


@click.command()
@click.option("--model", default="picturebook", show_default=True, help="Bundled name or folder.")
@click.option("--steps", default=20, show_default=True)
@click.option("--size", type=int, help="Pixels of a side.  [default: the model's]")
@click.option("--batch", default=1, show_default=True, help="Pictures at a time.")
@click.option("--dtype", default="float32", show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Processes of each engine.")
@click.option("--compile", "compiled", is_flag=True, help="Also diffusers by torch.compile.")
@click.option("--busy", is_flag=True, help="Processor time: for a machine that others use.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="All figures, here.")
@click.option("--markdown", "table_path", type=click.Path(path_type=Path), help="The table, here.")
@click.option("--child", hidden=True)
@click.option("--out", type=click.Path(path_type=Path), hidden=True)
@click.option("--started", type=float, hidden=True)
def main(
    model: str, steps: int, size: int | None, batch: int, dtype: str, rounds: int, compiled: bool,
    busy: bool, json_path: Path | None, table_path: Path | None, child: str | None,
    out: Path | None, started: float | None,
) -> None:  # fmt: skip
    """Time sdcore and diffusers on the same pictures; print a table."""
    job = Job(model, steps, size, batch, dtype)
    if child is not None:
        assert out is not None
        draw_and_time(child, job, started, out)
        return
    from tqdm import tqdm

    engines = (*OURS, *THEIRS, *((COMPILED,) if compiled else ()))
    results: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = folder / BASE
        if dtype != "float32":
            truth = folder / "float32"
            measure(BASE, replace(job, dtype="float32", steps=1, batch=1), truth)
        for _ in tqdm(range(rounds), desc="rounds", disable=None):
            for engine in engines:
                results[engine].append(measure(engine, job, folder / engine, busy))
        errors, wrong = judge({engine: folder / engine for engine in engines}, truth, dtype)
    lines = [heading(job, rounds, busy), *table(results), "", "Relative errors of a forward:"]
    lines += [f"{name} {value:.3g};" for name, value in errors.items()]
    print("\n".join(lines))
    if table_path is not None:
        table_path.write_text("\n".join(lines) + "\n")
    if json_path is not None:
        json_path.write_text(json.dumps({"results": results, "errors": errors}, indent=1))
    if wrong:
        raise click.ClickException("; ".join(wrong))


if __name__ == "__main__":
    main()
