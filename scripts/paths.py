"""eps, v and flow on one world at equal cost: `python -m scripts.paths` writes docs/paths.md.

The bundled model and its two twins learned the same pictures along three paths. Each is drawn with
the same seeds at the same number of evaluations, and compared with its own exact solution: the same
seed drawn in many steps. The sheet beside it shows what the errors look like.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import torch
from torch import Tensor
from tqdm import tqdm

import sdcore
from scripts.write_docs import table
from sdcore.adapters.files import find_adapter
from sdcore.sheets import Section, compose
from sdcore.strict_json import parse
from sdcore.writing import write_whole

DOCS = Path(__file__).parents[1] / "docs"
PROMPTS = ("a red house at sunset", "a blue boat left of a yellow sun")
SEEDS = (0, 1, 2, 3)
CFG = 3.0
COSTS = (10, 20, 40)  # evaluations of either branch
EXACT = 200  # steps of the exact solution, with heun


class Way(NamedTuple):
    """One of the three: how it is loaded, and what is asked of it."""

    name: str
    spacing: str
    adapter: str | None = None
    config: bool = False  # the scheduler config beside the adapter is its own
    prediction: str | None = None


WAYS = (
    Way("eps", "trailing"),
    Way("v, zero terminal SNR", "trailing", "picturebook-v", config=True),
    Way("flow", "simple", "picturebook-flow", prediction="flow"),
)
SOLVERS = {"euler": 1, "dpmpp_2m": 1, "heun": 2}  # and what a step costs


def model_of(way: Way) -> sdcore.StableDiffusion:
    sd = sdcore.load("picturebook", device="cpu")
    if way.adapter is not None:
        sd = sd.with_lora(way.adapter)
    if way.config:
        beside = find_adapter(str(way.adapter)).with_suffix(".json")
        sd = replace(sd, scheduler_config=parse(beside.read_text()))
    return sd


def ends(sd: sdcore.StableDiffusion, way: Way, solver: str, steps: int) -> tuple[Tensor, list]:
    """The latents at the end, [prompts * seeds, ...], and the pictures."""
    latents, pictures = [], []
    for prompt in PROMPTS:
        run = sd.prepare(
            prompt,
            seeds=list(SEEDS),
            scheduler=solver,
            spacing=way.spacing,
            steps=steps,
            cfg=CFG,
            prediction_type=way.prediction,
        )
        *_, last = run
        latents.append(last.x_next)
        pictures += run.decode(last.x_next)
    return torch.cat(latents), pictures


def rows(way: Way, sheet: dict[str, list]) -> Iterator[list[str]]:
    sd = model_of(way)
    exact, pictures = ends(sd, way, "heun", EXACT)
    sheet[f"{way.name}, {EXACT} steps"] = pictures
    for solver, cost in SOLVERS.items():
        cells = []
        for nfe in COSTS:
            found, drawn = ends(sd, way, solver, nfe // cost)
            apart = (found - exact).pow(2).mean((1, 2, 3)).sqrt()
            cells.append(f"{apart.mean():.3f} (worst {apart.max():.2f})")
            if solver == "dpmpp_2m" and nfe == COSTS[0]:
                sheet[f"{way.name}, {nfe} steps"] = drawn
        yield [way.name, solver, *cells]


@click.command()
@torch.inference_mode()
def main() -> None:
    """Draw, and write docs/paths.md and docs/paths.png."""
    sheet: dict[str, list] = {}
    found = [row for way in tqdm(WAYS, disable=None) for row in rows(way, sheet)]
    pictures = len(PROMPTS) * len(SEEDS)
    text = "\n".join([
        "# Three paths to one world\n",
        "Written by `python -m scripts.paths`. The bundled model says eps; its twins "
        "`picturebook-v` and `picturebook-flow` were trained on the same pictures to say v on a "
        "schedule that ends in pure noise, and the flow's eps - x0. What is measured is not how "
        "good they are but how well a solver follows each: the root mean square distance of the "
        f"latents to the same seed drawn with heun in {EXACT} steps, mean and worst of {pictures} "
        f"pictures, guidance {CFG:g}. Where the worst is about 1, as far as two seeds are apart, a "
        "picture ended as another one: early on the way a small error can decide between two, and "
        "the mean is then mostly this. The cost is counted in evaluations of either branch.\n",
        table(("says", "solver", *(f"{n} evaluations" for n in COSTS)), iter(found)),
        "\nTo draw with the flow: `sdcore sample \"a red house\" --lora picturebook-flow "
        "--prediction flow --cfg 3`.\n",
        "![The exact pictures and those of ten steps, for each path](paths.png)\n",
    ])  # fmt: skip
    blank = [""] * pictures
    compose([Section(name, each, blank) for name, each in sheet.items()], pictures).save(
        DOCS / "paths.png"
    )
    write_whole(DOCS / "paths.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
