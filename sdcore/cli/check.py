"""`sdcore check`: a stranger's solver against every law."""

import json

import click

from sdcore.cli.echo import echo
from sdcore.cli.lab import finite


@click.command()
@click.argument("solver", metavar="SOLVER.py")
@click.option("--order", type=click.IntRange(1), help="The order that it must reach.")
@click.option("--float32", is_flag=True, help="It computes in float32, as other tools' do.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def check(solver: str, order: int | None, float32: bool, as_json: bool) -> int:
    """Run a solver through every law and print what holds, what does not, and its order.

    SOLVER.py is a file with one step function (docs/writing-a-solver.md); a name of `sdcore
    schedulers` will do too. Exit status 1 if something does not hold.
    """
    from sdcore.lab.check import check as run
    from sdcore.schedulers import resolve

    report = run(resolve(solver).solver, order, float32)
    measured = report.convergence
    if as_json:
        found = {
            "solver": solver,
            "holds": report.holds,
            "findings": [vars(finding) for finding in report.findings],
            "nfe": report.nfe,
            "draws": report.draws,
            "claimed": order,
            "order": None if measured is None else finite(measured.order),
            "counts": () if measured is None else measured.counts,
            "errors": () if measured is None else finite(measured.errors),
        }
        echo(json.dumps(found, indent=2))
        return 0 if report.holds else 1
    for finding in report.findings:
        detail = f": {finding.detail}" if finding.detail else ""
        echo(f"{'holds' if finding.holds else 'FAILS'}  {finding.law}{detail}")
    if report.nfe:
        echo(f"NFE of 8 steps: {' '.join(map(str, report.nfe))}; draws: {report.draws}")
    broken = sum(not finding.holds for finding in report.findings)
    told = f"{broken} of {len(report.findings)} laws broken"
    told += "" if report.nfe else "; the others are tried once it runs"
    echo(told if broken else "every law holds")
    return 1 if broken else 0
