"""`sdcore lab`: what can be measured without weights."""

import json
import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import click

from sdcore.cli.echo import echo
from sdcore.errors import InputError


@click.group()
def lab() -> None:
    """Measure solvers in worlds whose answer is known."""


@lab.command(short_help="The order of convergence of solvers.")
@click.argument("solver", nargs=-1)
@click.option("--spacing", metavar="NAME", help="A spacing of the table, into its own end.")
@click.option("--start", type=float, help="The first sigma without a spacing.  [default: 10]")
@click.option("--end", type=float, help="The last sigma without a spacing.  [default: 0.1]")
@click.option("--steps", metavar="N,N...", default="10,20,40,80,160,320", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The table as JSON.")
@click.option("--plot", metavar="FILE", help="Draw error against NFE (.png, .svg, .pdf).")
def order(
    solver: tuple[str, ...],
    spacing: str | None,
    start: float | None,
    end: float | None,
    steps: str,
    as_json: bool,
    plot: str | None,
) -> None:
    """Measure the order of convergence of each SOLVER, a name or a .py file; none means all.

    The error is the largest at the last sigma above 0, in float64, in a world of Gaussian mixtures.
    With --spacing two more are told apart: of the last interval, into sigma 0, and of rounding in
    float32.
    """
    counts = _counts(steps)
    if spacing is not None and (start is not None or end is not None):
        raise InputError("--spacing has its own first and last sigma: leave out --start and --end")
    high, low = 10.0 if start is None else start, 0.1 if end is None else end
    if not 0 < low < high < math.inf:
        raise InputError(f"--start must be above --end, and both above 0: not {high:g} and {low:g}")

    from tqdm import tqdm

    from sdcore.lab.order import Window, measure_scheduler
    from sdcore.lab.plot import check_plot, draw_orders
    from sdcore.schedulers import TABLE

    path = None if plot is None else check_plot(plot)
    names = solver or tuple(entry.name for entry in TABLE)
    window = Window(high, low)
    results = [  # as they were written: of one solver there may be several, by their options
        replace(measure_scheduler(name, spacing, window, counts), name=name)
        for name in tqdm(names, unit="solver", leave=False, disable=None)
    ]
    where = f"sigma {high:g} to {low:g}" if spacing is None else f"{spacing} spacing"
    if path is not None:
        draw_orders(results, path, f"Error of the method, {where}")
    if as_json:
        rows = [
            {key: finite(value) for key, value in {**vars(each), "order": each.order}.items()}
            for each in results
        ]
        echo(json.dumps({"where": where, "solvers": rows}, indent=2))
        return
    for line in table(results):
        echo(line)


def table(results: list[Any]) -> list[str]:
    """The lines of the table, a head first."""
    counts = results[0].counts
    wide = max(6, *(len(each.name) for each in results))
    head = f"{'solver':{wide}}  claims  order" + "".join(f"  {f'N={n}':>7}" for n in counts)
    lines = [f"{head}  {'NFE':>6}  {'last':>7}  {'float32':>7}"]
    for each in results:
        claim = "-" if not each.claimed else each.claimed
        errors = "".join(f"  {error:7.1e}" for error in each.errors)
        last, rounding = (
            f"{values[-1]:7.1e}" if values else f"{'-':>7}" for values in (each.last, each.rounding)
        )
        mark = "" if each.holds else "  below its claim"
        mark += "" if each.how == "flow" else "  of the variance"
        row = f"{each.name:{wide}}  {claim:>6}  {each.order:5.2f}{errors}"
        lines.append(f"{row}  {each.nfe[-1]:6}  {last}  {rounding}{mark}")
    return lines


@lab.command(short_help="What a change midway costs a solver.")
@click.argument("solver", nargs=-1)
@click.option("--steps", default=20, show_default=True, type=click.IntRange(2, 1000))
@click.option("--json", "as_json", is_flag=True, help="The table as JSON.")
def change(solver: tuple[str, ...], steps: int, as_json: bool) -> None:
    """Change the grid, the solver or the guidance midway, and print each SOLVER's error at the end.

    A solver whose noise cannot be switched off is left out. "afresh" is the new grid with nothing
    remembered; then the new grid with what is remembered, with what another solver remembers, and
    with guidance of scale 3 after 1.
    """
    from tqdm import tqdm

    from sdcore.lab.change import KINDS, table
    from sdcore.schedulers import TABLE

    names = solver or tuple(entry.name for entry in TABLE)
    rows: dict[str, Any] = {}
    for name in tqdm(names, unit="solver", leave=False, disable=None):
        rows |= table([name], steps)
    if as_json:
        echo(json.dumps(rows))
        return
    wide = max(map(len, ("solver", *rows)))
    echo(f"{'solver':{wide}}  " + "  ".join(f"{kind:>8}" for kind in KINDS))
    for name, row in rows.items():
        echo(f"{name:{wide}}  " + "  ".join(f"{row[kind]:8.1e}" for kind in KINDS))


def _counts(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    counts = tuple(int(part) for part in parts if re.fullmatch(r"[0-9]{1,9}", part))
    rising = all(a < b for a, b in pairwise(counts))
    if len(counts) != len(parts) or len(counts) < 2 or not rising or counts[0] < 1:
        raise InputError(f"--steps is at least two rising numbers like 10,20,40, not {text!r}")
    return counts


def finite(value: Any) -> Any:
    """For JSON, which has neither infinity nor nan: null in their place, also in a tuple."""
    if isinstance(value, tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
