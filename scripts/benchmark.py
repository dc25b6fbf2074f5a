"""sdcore against diffusers on one model: `python -m scripts.benchmark`.

Each engine runs in a process of its own, in turns, so that neither profits from the other's caches
nor from a quiet minute; the table shows medians. Both draw the same picture from the same noise
(float32, DPM++ 2M, guided), which is checked.
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
from itertools import pairwise
from pathlib import Path

import click

ENGINES = ("sdcore", "diffusers")
ROWS = {  # what is measured: (label, unit, scale)
    "ready": ("process start to model ready", "s", 1.0),
    "picture": ("process start to first picture", "s", 1.0),
    "step": ("one step, warm", "ms", 1e3),
    "peak": ("peak memory of the process", "MB", 1.0),
}
PROMPT, SEED, CFG = "a red house at sunset", 0, 7.5


def run_sdcore(model: str, steps: int, mark: Callable[[str], None]) -> object:
    import sdcore

    sd = sdcore.load(model, device="cpu", dtype="float32")
    mark("ready")

    def draw() -> object:
        run = sd.prepare(PROMPT, seeds=[SEED], scheduler="dpmpp_2m", steps=steps, cfg=CFG)
        x = run.start.x
        for step in run:
            x = step.x_next
            mark("step")
        return run.decode(x)[0]

    picture = draw()
    mark("picture")
    draw()
    return picture


def run_diffusers(model: str, steps: int, mark: Callable[[str], None]) -> object:
    import torch
    from diffusers import StableDiffusionPipeline

    from sdcore.checkpoints import find_model

    pipe = StableDiffusionPipeline.from_pretrained(find_model(model), torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    mark("ready")

    def after_step(pipe: object, i: int, t: object, kwargs: dict) -> dict:
        mark("step")
        return kwargs

    def draw() -> object:
        generator = torch.Generator().manual_seed(SEED)
        side = pipe.unet.config.sample_size * pipe.vae_scale_factor
        return pipe(
            PROMPT,
            width=side,
            height=side,
            num_inference_steps=steps,
            guidance_scale=CFG,
            generator=[generator],
            callback_on_step_end=after_step,
        ).images[0]

    picture = draw()
    mark("picture")
    draw()
    return picture


def draw_and_time(engine: str, model: str, steps: int, started: float, out: Path) -> None:
    """Draw twice, note when; the second picture's steps are warm."""
    times: dict[str, list[float]] = {"ready": [], "step": [], "picture": []}

    def mark(name: str) -> None:
        times[name].append(time.time() - started)

    picture = {"sdcore": run_sdcore, "diffusers": run_diffusers}[engine](model, steps, mark)
    picture.save(out)  # type: ignore[attr-defined]
    warm = times["step"][steps:]
    result = {
        "ready": times["ready"][0],
        "picture": times["picture"][0],
        "step": statistics.median(b - a for a, b in pairwise(warm)),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result))


def measure(engine: str, model: str, steps: int, folder: Path) -> dict[str, float]:
    """One fresh process of this engine."""
    out = folder / f"{engine}.png"
    command = [sys.executable, __file__, "--child", engine, "--model", model]
    command += ["--steps", str(steps), "--out", str(out), "--started", repr(time.time())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{engine} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def difference(folder: Path) -> int:
    """The largest difference of the two engines' pictures, of 255."""
    import numpy as np

    from sdcore.images import open_picture

    a, b = (np.asarray(open_picture(folder / f"{e}.png")).astype(int) for e in ENGINES)
    return int(abs(a - b).max())


@click.command()
@click.option("--model", default="picturebook", show_default=True, help="Bundled name or folder.")
@click.option("--steps", default=20, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Processes of each engine.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="All figures, here.")
@click.option("--child", type=click.Choice(ENGINES), hidden=True)
@click.option("--out", type=click.Path(path_type=Path), hidden=True)
@click.option("--started", type=float, hidden=True)
def main(
    model: str,
    steps: int,
    rounds: int,
    json_path: Path | None,
    child: str | None,
    out: Path | None,
    started: float | None,
) -> None:
    """Time sdcore and diffusers on the same picture; print a table."""
    if child is not None:
        assert out is not None
        assert started is not None
        draw_and_time(child, model, steps, started, out)
        return
    from tqdm import tqdm

    results: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in tqdm(range(rounds), desc="rounds", disable=None):
            for engine in ENGINES:
                results[engine].append(measure(engine, model, steps, folder))
        apart = difference(folder)

    import torch

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch "
          f"{torch.__version__}, {steps} steps, medians of {rounds}\n")  # fmt: skip
    print("| | sdcore | diffusers | ratio |\n|---|---|---|---|")
    for row, (label, unit, scale) in ROWS.items():
        a, b = (statistics.median(r[row] for r in results[e]) for e in ENGINES)
        digits = 2 if unit == "s" else 0 if unit == "MB" else 1
        ours, theirs = (f"{v * scale:.{digits}f} {unit}" for v in (a, b))
        print(f"| {label} | {ours} | {theirs} | {a / b:.2f} |")
    print(f"\nThe two pictures differ by at most {apart} of 255.")
    if json_path is not None:
        from sdcore.writing import write_whole

        write_whole(json_path, json.dumps(results, indent=1).encode())
    if apart > 2:
        raise click.ClickException("the engines did not draw the same picture")


if __name__ == "__main__":
    main()
