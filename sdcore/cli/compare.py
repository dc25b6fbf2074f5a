"""`sdcore compare`: schedulers side by side, and how far each is from the exact solution."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.echo import echo, tell
from sdcore.cli.grouped import Grouped
from sdcore.cli.jobs import Job, jobs_of
from sdcore.cli.options import drawing_groups
from sdcore.cli.prompt_lists import read_prompts
from sdcore.errors import InputError
from sdcore.paths import path_of
from sdcore.picture_options import OPTIONS

if TYPE_CHECKING:
    from sdcore.experiments.cells import Cell


@click.command(cls=Grouped, groups=drawing_groups())
@click.argument("prompt", nargs=-1)
@click.option("--prompts", metavar="FILE", help="One a line, as for sample.")
@click.option("--nfe", type=int, multiple=True, help="Equal cost: as many steps as it allows.")
@click.option("--reference", default="dpmpp_2m", show_default=True, help="Solver of the reference.")
@click.option("--reference-spacing", default="karras", show_default=True, help="Its spacing.")
@click.option("--reference-steps", default=100, show_default=True, help="Its steps.")
@click.option("--cache", metavar="FOLDER", help="Of references.  [default: ~/.cache/sdcore/...]")
@click.option("--batch", type=int, help="How many are drawn at once.  [default: by device]")
@click.option("--out", metavar="FOLDER", default="comparison", show_default=True)
def compare(
    prompt: tuple[str, ...],
    prompts: str | None,
    nfe: tuple[int, ...],
    reference: str,
    reference_spacing: str,
    reference_steps: int,
    cache: str | None,
    batch: int | None,
    out: str,
    **options: Any,
) -> None:
    """Draw PROMPT... with every combination of the options that are given several times, and tell
    how far each picture's latents are from a reference: the same model, words, seed and guidance
    solved by many steps.

    Writes sheet.png, plot.png, comparison.csv and comparison.json to --out, and each picture to
    --out/pictures. What is there already is not drawn again, and references are kept in --cache
    for every comparison to come. Solvers that draw noise are compared in distribution, over all
    seeds.
    """
    if batch is not None and batch < 1:
        raise InputError(f"a batch has at least 1 picture, not {batch}")
    if reference_steps < 2:
        raise InputError(f"a reference has at least 2 steps, not {reference_steps}")
    asked = read_prompts(prompt, prompts)
    common = {"wildcards": None, "wildcard_dir": ".", "models": (), "lora_dir": (), "out": out}
    jobs = jobs_of(asked, {**common, **options}, drawn=0)
    cells = cells_of(jobs, nfe)

    from sdcore.experiments.comparison import Reference
    from sdcore.experiments.comparison import compare as compared
    from sdcore.experiments.comparison_sheet import as_csv, as_json, plot, sheet
    from sdcore.images import save_png
    from sdcore.writing import write_whole

    folder, exact = path_of(out), Reference(reference, reference_spacing, reference_steps)
    kept = None if cache is None else path_of(cache)
    rows = compared(cells, folder / "pictures", exact, cache=kept, batch=batch, tell=tell)
    write_whole(folder / "comparison.csv", as_csv(rows))
    write_whole(folder / "comparison.json", as_json(rows, exact))
    save_png(plot(rows), folder / "plot.png")
    save_png(sheet(rows, exact), folder / "sheet.png")
    echo(table([row.facts() for row in rows]))
    for name in ("sheet.png", "plot.png", "comparison.csv", "comparison.json"):
        echo(str(folder / name))


def cells_of(jobs: Sequence[Job], nfe: Sequence[int] = ()) -> list[Cell]:
    """A cell for each prompt, seed and combination; for each number of evaluations, where given.

    Raises InputError where steps are given too, or too few evaluations for one step.
    """
    from sdcore.experiments.cells import Cell

    cells = []
    for job in jobs:
        options = {name: job.chosen[name] for name in OPTIONS
                   if job.chosen.get(name) not in (None, ())}  # fmt: skip
        for prompt, seed in itertools.product(job.prompts, job.seeds):
            cells.append(Cell(prompt, seed, options, dict(job.labels), job.tagged.get(prompt)))
    return with_nfe(cells, nfe) if nfe else cells


def with_nfe(cells: Sequence[Cell], nfe: Sequence[int]) -> list[Cell]:
    """Each cell with the most steps that so many evaluations allow."""
    from sdcore.experiments.budget import steps_within
    from sdcore.experiments.cells import Studio

    if any("steps" in cell.options for cell in cells):
        raise InputError("--nfe says how many steps there are: leave out --steps")
    studio, known, new = Studio(tell), {}, []
    for cell in cells:
        for most in nfe:
            key = (cell.shared, most)
            if key not in known:
                known[key] = steps_within(studio, cell, most)
            labels = {**cell.labels, **({"nfe": most} if len(nfe) > 1 else {})}
            steps = {**cell.options, "steps": known[key]}
            new.append(replace(cell, options=steps, labels=labels))
    return new


def table(facts: Sequence[Mapping[str, Any]]) -> str:
    """The median error of each way of solving, over seeds and prompts; and their ranges."""
    import statistics

    sets: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for each in facts:
        names = ("scheduler", "spacing", "steps", "cfg", "guidance")
        key = tuple("" if each[name] is None else each[name] for name in names)
        sets.setdefault((*key, each["nfe"]), []).append(each)
    lines = [f"{'scheduler':<24}{'spacing':<12}{'steps':>6}{'cfg':>6}{'NFE':>6}  error (range)"]
    for (scheduler, spacing, steps, cfg, guidance, nfe), members in sets.items():
        errors = [each["error"] for each in members if each["error"] is not None]
        if errors:
            far = f"{statistics.median(errors):.4g} ({min(errors):.3g} to {max(errors):.3g})"
        elif members[0]["energy_distance"] is None:
            far = "draws noise: in distribution, of several seeds"
        else:
            distances = [f"{each['energy_distance']:.3g} (p {each['p']:.2g})" for each in members]
            far = f"in distribution {', '.join(dict.fromkeys(distances))}"
        name = f"{scheduler} {guidance}".strip()
        lines.append(f"{name:<24}{spacing:<12}{steps:>6}{cfg:>6g}{nfe:>6}  {far}")
    return "\n".join(lines)
