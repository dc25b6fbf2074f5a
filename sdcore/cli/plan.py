"""`sdcore plan`: every step of a schedule, before anything runs."""

import json
import math
from dataclasses import asdict, astuple
from typing import Any

import click

from sdcore.cli.echo import echo
from sdcore.cli.options import chosen_spacing
from sdcore.compare import TOOLS


@click.command()
@click.option("--scheduler", metavar="NAME", help="As for sample.  [default: the model's]")
@click.option("--spacing", metavar="NAME", help="As for sample.  [default: the scheduler's]")
@click.option("--sigmas", metavar="LIST", help="The noise levels themselves, e.g. 14.6,5,1,0.")
@click.option("--timesteps", metavar="LIST", help="Or the timesteps, e.g. 999,750,500,250.")
@click.option("--tail", metavar="TAIL", help="zero, sigma_min, discard_penultimate, or a sigma.")
@click.option("--eta", type=float, help="Share of fresh noise a step.")
@click.option("--steps", type=int, help="How many steps.  [default: 20]")
@click.option("--model", metavar="MODEL", help="Whose scheduler_config.json.  [default: SD 1.5's]")
@click.option(
    "--like",
    type=click.Choice(TOOLS),
    help="Also what that tool would do differently.",
)
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
def plan(
    scheduler: str | None,
    tail: str | None,
    eta: float | None,
    steps: int | None,
    model: str | None,
    like: str | None,
    as_json: bool,
    **lists: str | None,
) -> None:
    """Print i, t, sigma, next sigma, h = log(sigma / next), NFE and draws of every step.

    The counts come from running the solver on a stub in place of the model.
    """
    spacing = chosen_spacing(lists)

    from sdcore.compare.tools import differences
    from sdcore.schedulers import resolve
    from sdcore.schedulers.rehearsal import rows_of

    config = None
    if model is not None:
        from sdcore.checkpoints import open_model

        config = open_model(model).scheduler or None
    chosen = resolve(scheduler, spacing, eta, config, tail)
    if steps is None:
        steps = 20 if chosen.spacing.steps is None else chosen.spacing.steps
    laid = chosen.plan(steps)
    rows = rows_of(chosen, laid)
    apart = [] if like is None else differences(chosen, steps, like, config)
    facts = {
        "scheduler": chosen.name,
        "spacing": chosen.spacing.name,
        "tail": chosen.spacing.tail,
        "prediction_type": chosen.prediction_type,
        "order": chosen.entry.order,
        **({"tableau": chosen.entry.tableau} if chosen.entry.tableau else {}),
        "steps": steps,
        "nfe": sum(row.nfe for row in rows),
        "draws": sum(row.draws for row in rows),
        "start_scale": laid.start_scale,
        "end_scale": laid.end_scale,
    }
    if as_json:
        facts["rows"] = [_plain(asdict(row)) for row in rows]
        if like is not None:
            facts["like"] = {"tool": like, "differences": [asdict(d) for d in apart]}
        echo(json.dumps(facts, indent=1))
        return
    echo("  ".join(f"{key} {_short(value)}" for key, value in facts.items()))
    echo(f"{'i':>4} {'t':>9} {'sigma':>12} {'next':>12} {'h':>8} {'NFE':>4} {'draws':>5}")
    for row in rows:
        echo(
            f"{row.index:4} {row.timestep:9.3f} {row.sigma:12.6f} {row.sigma_next:12.6f} "
            f"{row.h:8.4f} {row.nfe:4} {row.draws:5}"
        )
    if like is not None:
        echo(f"\n{like} would differ in" + (":" if apart else " nothing"))
        for what, ours, theirs in map(astuple, apart):
            echo(f"  {what}: {_short(theirs)} (here {_short(ours)})")


def _short(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: null."""
    return {key: None if value == math.inf else value for key, value in row.items()}
