"""What each lossy option gains and what it costs, on the bundled model: `python -m scripts.lossy`.

The same pictures are drawn exactly and by every option, picture by picture in turns, so that what
else the machine does slows all of them. Gain: the loop's time on this thread as a share of the
exact one's, of the same picture. Cost: how far the latents are from the exact ones, how like the
exact picture the picture is (PSNR); with --examiner also how many pictures follow their prompt as
scripts/adherence.py marks them (the examiner is trained at first use, which takes minutes).

What was drawn lies in the folder of --work and is not drawn again: an interrupted run goes on.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm import tqdm

import sdcore
from scripts.adherence import descriptions, examine
from scripts.measured import state
from scripts.train.examiner import load_examiner
from scripts.train.world import canonical_caption
from sdcore.cli.bench import processor

EXACT = "exact"
HOW: dict[str, Any] = {"scheduler": "dpmpp_2m", "spacing": "karras", "cfg": 7.5}
OPTIONS: dict[str, dict[str, Any]] = {  # as prepare() takes them
    EXACT: {},
    "deepcache:every=2": {"lossy": "deepcache:every=2"},
    "deepcache:every=3": {"lossy": "deepcache:every=3"},
    "deepcache:every=5": {"lossy": "deepcache:every=5"},
    "tome:ratio=0.5": {"lossy": "tome:ratio=0.5"},
    "tgate:after=0.4": {"lossy": "tgate:after=0.4"},
    "bf16": {"lossy": "bf16"},
    "deepcache:every=2+tgate+bf16": {"lossy": "deepcache:every=2+tgate+bf16"},
    "cfg+interval:low=0.3,high=5": {"guidance": "cfg+interval:low=0.3,high=5"},
}
WEIGHTS = {"--weights int8": "int8", "--weights fp8": "fp8"}  # as load() takes them
NAMES = (*OPTIONS, *WEIGHTS)
Facts = dict[str, float]


def draw(sd: sdcore.StableDiffusion, name: str, prompt: str, seed: int, place: Path) -> None:
    """One picture, its latents and how long its loop took, into `place`; nothing if it is there."""
    if place.with_suffix(".json").exists():
        return
    run = sd.prepare(prompt, seeds=[seed], **HOW, **OPTIONS.get(name, {}))
    with run.without_gradients():
        next(iter(run))  # what a network is made into once for many pictures is not this one's
        begun = time.thread_time()
        for step in run:
            x = step.x_next
        taken = time.thread_time() - begun
        run.decode(x)[0].save(place.with_suffix(".png"))
    save_file({"x": x.contiguous()}, place.with_suffix(".safetensors"))
    place.with_suffix(".json").write_text(json.dumps({"seconds": taken}))


def psnr(a: Path, b: Path) -> float:
    """Of two pictures, in dB; 100 where they are the same."""
    x, y = (np.asarray(Image.open(path)).astype(float) for path in (a, b))
    return 100.0 if (error := ((x - y) ** 2).mean()) == 0 else 10 * math.log10(255**2 / error)


def compared(work: Path, name: str, count: int) -> Facts:
    """Medians over the pictures, beside the exact ones."""
    ratios, distances, decibels = [], [], []
    for index in range(count):
        own, exact = (work / folder_of(each) / str(index) for each in (name, EXACT))
        seconds = [json.loads(p.with_suffix(".json").read_text())["seconds"] for p in (own, exact)]
        ratios.append(seconds[0] / seconds[1])
        x, right = (load_file(p.with_suffix(".safetensors"))["x"] for p in (own, exact))
        distances.append(float((x - right).norm() / right.norm()))
        decibels.append(psnr(own.with_suffix(".png"), exact.with_suffix(".png")))
    middle = statistics.median
    return {"time": middle(ratios), "least": min(ratios), "most": max(ratios),
            "off": middle(distances), "psnr": middle(decibels)}  # fmt: skip


def folder_of(name: str) -> str:
    return name.replace(":", "_").replace("=", "-").replace(" ", "_")


def size(sd: sdcore.StableDiffusion) -> int:
    """Bytes of the UNet's weights."""
    return sum(each.nbytes for each in (*sd.unet.parameters(), *sd.unet.buffers()))


@click.command()
@click.option("--pictures", default=60, show_default=True, help="For each option.")
@click.option("--work", default="runs/lossy", show_default=True, type=click.Path(path_type=Path))
@click.option("--examiner", type=click.Path(path_type=Path), help="Folder that keeps the examiner.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="All figures, here.")
def main(pictures: int, work: Path, examiner: Path | None, report: Path | None) -> None:
    """Print a table of every option's gain and cost."""
    torch.set_num_threads(1)
    sdcore.tune_allocator()
    sd = sdcore.load(device="cpu", dtype="float32")
    models = {name: sdcore.load(device="cpu", weights=kind) for name, kind in WEIGHTS.items()}
    asked = descriptions(pictures, held_out=True)
    work /= state()
    for name in NAMES:
        (work / folder_of(name)).mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(pictures), desc="pictures", disable=None):
        prompt = canonical_caption(asked[index])
        for name in NAMES:
            place = work / folder_of(name) / str(index)
            draw(models.get(name, sd), name, prompt, index, place)
    judge = None if examiner is None else load_examiner(examiner)
    settings = sd.prepare("", **HOW).settings[0]
    columns = ["", "time of the loop", "UNet's weights", "latents off", "PSNR"]
    columns += [] if judge is None else ["prompts followed"]
    print(
        f"{processor()}, one thread, torch {torch.__version__}: {settings.model}, float32, "
        f"{settings.steps} steps of {settings.scheduler}, {pictures} pictures\n\n"
        f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"
    )
    facts: dict[str, Facts] = {}
    for name in NAMES:
        done = facts[name] = compared(work, name, pictures)
        done["weights"] = size(models.get(name, sd)) / size(sd)
        cells = [f"`{name}`", f"{done['time']:.2f}", f"{done['weights']:.2f}"]
        cells[1] += "" if name == EXACT else f" ({done['least']:.2f} to {done['most']:.2f})"
        cells += ["0", ""] if name == EXACT else [f"{done['off']:.3f}", f"{done['psnr']:.1f} dB"]
        if judge is not None:
            files = [work / folder_of(name) / f"{index}.png" for index in range(pictures)]
            drawn = [Image.open(file).convert("RGB") for file in files]
            done["right"] = examine(judge, asked, drawn)["all right"] or 0.0
            cells.append(f"{100 * done['right']:.0f} %")
        print(f"| {' | '.join(cells)} |", flush=True)
    if report is not None:
        report.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
