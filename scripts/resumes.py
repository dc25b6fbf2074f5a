"""Runs that are stopped, rewound and branched, by every solver: docs/resume.md.

    python -m scripts.resumes            # writes docs/resume.md
    python -m scripts.resumes --print

Whole fed-back runs over the stand-in network of scripts/trajectories.py, which no solver can leave
without going another way.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
from torch import Tensor

from scripts.pages import put, shown_option
from scripts.trajectories import our_steps
from sdcore.sampling import State, Step
from sdcore.schedulers import TABLE, Entry, resolve

DOCS = Path(__file__).parents[1] / "docs" / "resume.md"
STEPS = 6


def rest(name: str, state: State, solver: str | None = None) -> list[Step]:
    """The steps that are left from a state, perhaps by another solver."""
    scheduler = resolve(name)
    if solver is not None:
        scheduler = replace(scheduler, solver=resolve(solver).solver)
    return our_steps(scheduler, STEPS, state=state)[0]


def apart(steps: list[Step], whole: list[Step]) -> float:
    """The largest difference of any x_next from that of the same step in another run."""
    by_index = {step.index: step.x_next for step in whole}
    return max(_distance(step.x_next, by_index[step.index]) for step in steps)


def _distance(a: Tensor, b: Tensor) -> float:
    """Infinite where there are no numbers."""
    return (a - b).abs().nan_to_num(nan=math.inf).max().item()


def row(entry: Entry, folder: Path) -> tuple[str, float, float, float]:
    """Solver; how far from the run that never stopped, from any step on: from a file; rewound to an
    old step of it; and a branch in another solver from a file, from the same one from the step."""
    name = entry.name
    whole, _ = our_steps(resolve(name), STEPS)
    other = "heun" if name != "heun" else "dpmpp_2m"
    resumed = rewound = branched = 0.0
    for step in whole[:-1]:
        path = folder / f"{name}.safetensors"
        step.state.save(path)
        resumed = max(resumed, apart(rest(name, State.load(path)), whole))
        branch = rest(name, step.state, other)
        branched = max(branched, apart(rest(name, State.load(path), other), branch))
        rewound = max(rewound, apart(rest(name, step.state), whole))  # after others went on from it
    return name, resumed, rewound, branched


def page() -> str:
    return "\n".join(
        [
            "# Stopped, rewound, branched",
            "",
            f"Written by `python -m scripts.resumes`: {STEPS} steps of every solver over a small "
            "network, gone on with from each of them. The largest difference of any x after that: "
            "from the run that never stopped, gone on with from a file (noise made anew from the "
            "seeds) and from an old step of itself, after others went on from there; and of a "
            "branch that goes on in another solver, from a file and from the step. 0 is equal to "
            "the bit.",
            "",
            "| solver | from a file | rewound | branched |",
            "|---|---|---|---|",
            *lines(),
            "",
        ]
    )


def lines() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        for entry in TABLE:
            name, *errors = row(entry, Path(folder))
            yield f"| {name} | {' | '.join(f'{error:g}' for error in errors)} |"


@click.command()
@shown_option
def main(shown: bool) -> None:
    """Measure, and write docs/resume.md."""
    put(DOCS, page(), shown)


if __name__ == "__main__":
    main()
