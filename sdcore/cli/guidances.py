"""`sdcore guidances`: what there is to choose from."""

import json
import math

import click

from sdcore.cli.echo import echo
from sdcore.cli.installed import in_json, usable


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def guidances(as_json: bool) -> None:
    """List every guidance: its options with their defaults, evaluations a step, paper.

    What is listed can be written behind --guidance, with those options that are to differ:
    pag:strength=2. Several are joined by a plus: cfg+interval:high=5 is CFG in a window of sigma,
    cfg+pag is both at once. scale is --cfg where none is written. NFE counts every branch that is
    run in a step; inside its window for an interval, which is cond alone outside.
    """
    from sdcore.guidance import GUIDANCES, resolve
    from sdcore.written import Written, format

    rows = [
        {
            "name": name,
            "options": entry.options,
            "nfe": len(resolve(name).branches(1.0)),
            "paper": entry.paper,
            "what": entry.what,
        }
        for name, entry in GUIDANCES.items()
    ]
    if as_json:
        shown = [row | {"options": _in_json(row["options"])} for row in rows]
        echo(json.dumps([*shown, *in_json("guidance")], indent=1, allow_nan=False))
        return
    written = [format(Written(row["name"], row["options"])) for row in rows]
    wide, paper = (max(map(len, texts)) for texts in (written, [row["paper"] for row in rows]))
    echo(f"{'written, with its defaults':{wide}}  NFE  {'paper':{paper}}  what it is")
    for row, text in zip(rows, written, strict=True):
        echo(f"{text:{wide}}  {row['nfe']:>3}  {row['paper']:{paper}}  {row['what']}")
    for each in usable("guidance"):
        echo(f"{each.name:{wide}}  of {each.source}  {each.what}".rstrip())


def _in_json(options: dict) -> dict:
    """JSON has no infinity: it is the text that is written."""
    return {name: "inf" if value == math.inf else value for name, value in options.items()}
