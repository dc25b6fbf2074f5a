"""What a comparison costs beside the same pictures drawn by `sdcore sample`.

    python -m scripts.compare_time

5 schedulers x 4 numbers of steps x 4 seeds of the bundled model: by one `sdcore compare`, whose
references are drawn too, then by one `sdcore sample` after the other, then by a single `sample`
that is given every option several times. Seconds on the clock, and of the processors.
"""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

PROMPT = "a red house at sunset"
SCHEDULERS = ("euler", "ddim", "dpmpp_2m", "unipc", "heun")
STEPS, SEEDS = (4, 8, 12, 20), range(4)


def timed(commands: Iterable[Sequence[str]]) -> tuple[float, float]:
    """Seconds on the clock and of the processors that these commands take one after the other."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for command in commands:
        subprocess.run([sys.executable, "-m", "sdcore", *command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, used


def options(name: str, values: Iterable[object]) -> list[str]:
    return [word for value in values for word in (name, str(value))]


@click.command()
@click.option("--every", default=1, show_default=True, help="Of the single ones only so many.")
def main(every: int) -> None:
    """Print the three times, and their ratios.

    --every 4 draws one seed of each by itself, and takes its time four times.
    """
    asked = [*options("--scheduler", SCHEDULERS), *options("--steps", STEPS), "--seed", "0-3"]
    with tempfile.TemporaryDirectory() as place:
        out, one, many = (str(Path(place) / name) for name in ("compare", "one", "many"))
        compared = timed([["compare", PROMPT, *asked, "--out", out, "--cache", f"{place}/cache"]])
        cells = list(itertools.product(SCHEDULERS, STEPS, SEEDS))[::every]
        alone = timed(
            ["sample", PROMPT, "--scheduler", name, "--steps", str(steps), "--seed", str(seed),
             "--out", one] for name, steps, seed in cells
        )  # fmt: skip
        alone = (alone[0] * every, alone[1] * every)
        together = timed([["sample", PROMPT, *asked, "--out", many]])
    count = len(SCHEDULERS) * len(STEPS) * len(SEEDS)
    note = "" if every == 1 else f" (of the single ones every {every}th was drawn)"
    click.echo(f"{count} pictures{note}: seconds on the clock, and of the processors")
    for name, (clock, used) in (
        ("sdcore compare, its references and sheet with it", compared),
        ("sdcore sample, one after the other", alone),
        ("sdcore sample, all in one command", together),
    ):
        click.echo(f"{name:<50}{clock:8.1f}{used:8.1f}")
    ratios = [compared[i] / alone[i] for i in (0, 1)]
    click.echo(f"compare / one after the other: {ratios[0]:.2f}, of the processors {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
