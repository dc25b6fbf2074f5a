"""How far each inversion is from undoing itself on the bundled model: docs/inversion.md.

    python -m scripts.inversions            # writes docs/inversion.md
    python -m scripts.inversions --print

Pictures are drawn, encoded, carried up to noise and drawn again from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from scripts.pages import put, shown_option
from scripts.write_docs import table
from sdcore.images import to_tensor
from sdcore.inversion import inverted, rising
from sdcore.lab import Gaussian, denoiser
from sdcore.likelihood import Hutchinson, exact_divergence, log_likelihood
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion
from sdcore.process import process_of
from sdcore.sampling import sample
from sdcore.schedulers import resolve

DOCS = Path(__file__).parents[1] / "docs" / "inversion.md"
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
PATHS: dict[str, tuple[Any, ...]] = {  # spacing, eta and config
    "Stable Diffusion": ("karras",),
    "flow": ("simple", None, FLOW),
}
PROMPT, SEEDS, STEPS, ITERATIONS = "a blue boat on the sea", (1,), (10, 20, 50), (1, 5)
SOLVERS, COUNTS = ("heun", "rk4"), (10, 20, 40, 80)  # of the likelihoods; COUNTS of steps
METHODS = [
    ("plain", "euler", 0),
    *(("fixed-point", "euler", n) for n in ITERATIONS),
    ("exact", "belm", 0),
    ("edit-friendly", "euler_a", 0),
]


def latents(sd: StableDiffusion) -> torch.Tensor:
    """Those of pictures that the model drew, as the VAE reads them again, [B,4,h,w]."""
    run = sd.prepare(PROMPT, seeds=SEEDS, scheduler="dpmpp_2m", steps=20, cfg=5.0)
    *_, last = run
    pictures = run.decode(last.x_next)
    return torch.cat([sd.vae.encode(to_tensor(each)).mean for each in pictures])


def round_trip(sd: StableDiffusion, x0: torch.Tensor, row: tuple[str, str, int], steps: int) -> str:
    """The largest error of the latents, and the residual of a fixed point."""
    method, scheduler, iterations = row
    run = sd.prepare(PROMPT, seeds=SEEDS, scheduler=scheduler, steps=steps, cfg=1.0)
    there = inverted(run.denoise, x0, run.sigmas, run.solver, method, run.noise, iterations)
    *_, last = sample(run.denoise, there.state, run.sigmas, run.solver, there.noise or run.noise)
    error = (last.x_next - x0).abs().max().item()
    return f"{error:.1e}" + ("" if there.residual is None else f" ({there.residual:.1e})")


def name_of(row: tuple[str, str, int]) -> str:
    method, _, iterations = row
    return method + f", {iterations} iteration{'s' * (iterations > 1)}" * (iterations > 0)


def likelihoods(counts: Sequence[int] = COUNTS) -> Iterator[list[str]]:
    """Rows: the error of log p in a Gaussian world, where it is known."""
    for path in PATHS:
        for solver in SOLVERS:
            yield from errors_of_log_p(path, solver, counts)


def errors_of_log_p(path: str, solver: str, counts: Sequence[int]) -> Iterator[list[str]]:
    """The rows of one solver on one path, one for each number of steps."""
    world, variance = Gaussian(0.3, 0.5), 0.25
    x = torch.linspace(-1, 1.5, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    for steps in counts:
        scheduler = resolve(solver, *PATHS[path])
        plan = scheduler.plan(steps)
        process = process_of(scheduler.prediction_type, plan)
        up = rising([sigma for sigma in plan.sigmas if sigma > 0])
        wide = variance + up[0] ** 2
        each = -0.5 * ((x - 0.3) ** 2 / wide + math.log(2 * math.pi * wide))
        cells = []
        for divergence in (exact_divergence, Hutchinson(1)):
            denoise = denoiser(world, process=process) if path == "flow" else world
            found = log_likelihood(
                denoise, x, up, scheduler.solver, divergence, 0.3, variance, process
            )
            cells.append(f"{abs((found.log_density - each.sum()).item()):.1e}")
        yield [path, solver, str(steps), f"{each.sum():.4f}", *cells]


def page() -> str:
    sd = load(device="cpu", engine="plain")
    with torch.inference_mode():
        x0 = latents(sd)
        rows = []
        for row in METHODS:
            cells = " | ".join(round_trip(sd, x0, row, steps) for steps in STEPS)
            rows.append(f"| {name_of(row)} | {row[1]} | {cells} |")
    return "\n".join(
        [
            "# Inversion",
            "",
            "Written by `python -m scripts.inversions` on a CPU: the bundled model in float32, "
            f"{len(SEEDS)} picture, guidance 1. The largest error of the latents (which reach "
            f"{x0.abs().max():.1f}) after the way up to noise and down again; in brackets the "
            "largest residual of the last correction.",
            "",
            f"| method | scheduler | {' | '.join(f'{n} steps' for n in STEPS)} |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "The exact one (BELM) undoes itself to rounding. Edit-friendly noise comes back up to "
            "the last step's own error, which draws none. What the VAE loses comes on top.",
            "",
            "## Likelihood",
            "",
            "log p of 16 values in a Gaussian world, in nats: the exact value at the least sigma "
            "above 0, and how far off the flow's is with the exact trace and with one of "
            "Hutchinson's probes. It is one more value that the solver carries, and of its order. "
            "On Stable Diffusion's schedule with karras spacing, and along the straight path of "
            "flow matching with simple spacing.",
            "",
            table(
                ("path", "solver", "steps", "log p", "exact trace", "Hutchinson"),
                likelihoods(),
            ),
            "",
        ]
    )


@click.command()
@shown_option
def main(shown: bool) -> None:
    """Measure, and write docs/inversion.md."""
    put(DOCS, page(), shown)


if __name__ == "__main__":
    main()
