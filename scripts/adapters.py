"""diffusers' pipelines with our solvers for schedulers, beside the same solvers in our own loop.

    python -m scripts.adapters            # writes docs/adapters.md
    python -m scripts.adapters --print

The pipelines are of small random networks (scripts/small_pipelines.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import diffusers
import torch
from torch import Tensor

from scripts.pages import put, shown_option
from scripts.small_pipelines import PIPELINES, SD, SDXL, SEEDS, sd, text
from scripts.trajectories import apart
from sdcore.adapters import as_diffusers

DOCS = Path(__file__).parents[1] / "docs" / "adapters.md"
SOLVERS = ("ddim", "euler", "dpmpp_2m", "unipc", "heun", "dpm2", "rk4", "euler_a", "dpmpp_sde")
STEPS, STRENGTH = 6, 0.6
PICTURE = text(2, 4, 8, 8, seed=6)  # latents
MASK = (text(2, 1, 8, 8, seed=7) > 0).float()  # 1: is repainted


def both(pipeline: str, solver: str, steps: int) -> tuple[Tensor, Tensor]:
    """x [B,...] at the end, of a pipeline that has our solver for a scheduler, and of our loop.

    Image-to-image goes the last 0.6 of the steps; there and in inpainting the picture is latents.
    """
    small = PIPELINES[pipeline]()
    flows = small.config is not SD and small.config is not SDXL
    seeds = SEEDS if flows else ()  # those pipelines keep their generators to themselves
    small.pipe.scheduler = as_diffusers(solver, small.config, seeds=seeds)
    if "strength" not in pipeline_call(pipeline):
        return small.run(steps), small.ours(solver, steps)
    noise, start = small.noise().start(), steps - int(steps * STRENGTH)

    def held(x: Tensor, sigma: float) -> Tensor:
        return MASK * x + (1 - MASK) * (PICTURE + sigma * noise)

    repaints = pipeline == "StableDiffusionInpaint"
    ours = sd().ours(solver, steps, start, PICTURE, held if repaints else None)
    return small.run(steps, **pipeline_call(pipeline)), ours


def pipeline_call(pipeline: str) -> dict[str, Any]:
    """The picture that a pipeline starts from."""
    if pipeline not in ("StableDiffusionImg2Img", "StableDiffusionInpaint"):
        return {}
    call = {"image": PICTURE, "strength": STRENGTH}
    if pipeline == "StableDiffusionImg2Img":
        return call
    mask = MASK.repeat_interleave(8, 2).repeat_interleave(8, 3)
    return {**call, "mask_image": mask, "masked_image_latents": PICTURE}


def table(
    pipelines: Sequence[str] = tuple(PIPELINES),
    solvers: Sequence[str] = SOLVERS,
    steps: int = STEPS,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Each pipeline, and how far it is from our loop with each solver.

    The largest difference of x at the end, relative to the largest x where that is above 1.
    """
    for pipeline in pipelines:
        yield pipeline, {solver: apart(*both(pipeline, solver, steps)) for solver in solvers}


PAGE = """# Our solvers in diffusers' pipelines

Made by `python -m scripts.adapters`; how they are used: [with-other-tools.md](with-other-tools.md).

Each pipeline of diffusers {version} has small random networks, and is run with a solver of sdcore
for its scheduler: {steps} steps, two pictures, float32 on a CPU. Beside it sdcore's own loop runs
the same solver over the same pipeline, which is asked one question at a time. The number is the
maximum absolute error of the latents at the end, relative to the largest of them where that is
above 1; a unit in the last place of float32 is 1.2e-7. Image-to-image and inpainting go the last
{strength} of the steps.

| pipeline | {solvers} |
|---|{columns}
{rows}

The worst is {worst:.0e}.
"""


@click.command()
@shown_option
@torch.inference_mode()
def main(shown: bool) -> None:
    """Write docs/adapters.md."""
    found = dict(table())
    rows = [f"| {name} | {' | '.join(f'{gap:.0e}' for gap in row.values())} |"
            for name, row in found.items()]  # fmt: skip
    page = PAGE.format(
        version=diffusers.__version__, steps=STEPS, strength=STRENGTH,
        solvers=" | ".join(SOLVERS), columns="---|" * len(SOLVERS), rows="\n".join(rows),
        worst=max(gap for row in found.values() for gap in row.values()),
    )  # fmt: skip
    put(DOCS, page, shown)


if __name__ == "__main__":
    main()
