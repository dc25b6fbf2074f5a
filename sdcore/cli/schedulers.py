"""`sdcore schedulers`: what there is to choose from."""

import json
from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.echo import echo
from sdcore.cli.installed import in_json, usable
from sdcore.errors import InputError

if TYPE_CHECKING:
    from sdcore.extensions import Kind
    from sdcore.schedulers import Entry


@click.command()
@click.option("--spacings", is_flag=True, help="The spacings in place of the schedulers.")
@click.option("--noises", is_flag=True, help="The noises that a stochastic one may draw.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def schedulers(spacings: bool, noises: bool, as_json: bool) -> None:
    """List every scheduler: names, order of convergence, NFE a step, noise, paper.

    Any of the names will do. A short name or a class of diffusers runs with the spacing, the ends
    and the timesteps of that class; a name of k-diffusion (sample_euler, k_euler) or in A1111's
    spelling ("DPM++ 2M Karras") with that tool's; a prefix chooses: diffusers:, kdiffusion:,
    a1111:, comfyui:. Options of the solver follow a colon: heun_churn:s_churn=10,s_noise=1.003;
    a wrong one is answered with those that there are. What installed packages add comes last, with
    where it comes from (docs/writing-a-solver.md).
    """
    from sdcore.schedulers import SPACINGS, TABLE, TOOLS
    from sdcore.schedulers.table import find

    if spacings and noises:
        raise InputError("one list at a time: --spacings or --noises")
    if noises:
        _noises(as_json)
        return
    if spacings:
        tools = {
            f"{key}:{name}": f"as {tool.label} lays it" for key, tool in TOOLS.items()
            for name in tool.spacings
        }  # fmt: skip
        spacings_of_all = {**SPACINGS, **tools}
        lists = {"sigmas:14.6,7,0": "these noise levels", "timesteps:999,500": "these timesteps"}
        if as_json:
            added = {each.name: each.what for each in usable("spacing")}
            echo(json.dumps(spacings_of_all | added, indent=1))
        else:
            for name, what in (*SPACINGS.items(), *lists.items()):
                echo(f"{name:18} {what}")
            for key, tool in TOOLS.items():
                echo(f"{key + ':':18} {', '.join(tool.spacings)}")
            for each in usable("spacing"):
                echo(f"{each.name:18} of {each.source}  {each.what}".rstrip())
        return
    if as_json:
        added = [_row(find(each.name)[0], each.source) for each in usable("solver")]
        echo(json.dumps([*(_row(entry) for entry in TABLE), *added], indent=1))
        return
    wide = max(len(entry.name) for entry in TABLE)
    source = max(len(entry.paper) for entry in TABLE)
    echo(f"{'name':{wide}}  order  NFE  noise  {'paper':{source}}  also")
    for entry in TABLE:
        noise = "yes" if entry.stochastic else "eta" if entry.eta is not None else "no"
        echo(
            f"{entry.name:{wide}}  {entry.order or '-':>5}  {entry.nfe or '-':>3}  {noise:5}  "
            f"{entry.paper:{source}}  {', '.join((*entry.labels, *_tableau(entry)))}".rstrip()
        )
    kinds: tuple[Kind, ...] = ("solver", "noise")
    for kind in kinds:
        for each in usable(kind):
            echo(f"{each.name:{wide}}  {kind} of {each.source}  {each.what}".rstrip())


def _noises(as_json: bool) -> None:
    from sdcore.brownian import ABOUT

    rows = [{"name": name, "what": what, "from": "sdcore"} for name, what in ABOUT.items()]
    if as_json:
        echo(json.dumps([*rows, *in_json("noise")], indent=1))
        return
    for row in rows:
        echo(f"{row['name']:18} {row['what']}")
    for each in usable("noise"):
        echo(f"{each.name:18} of {each.source}  {each.what}".rstrip())


def _row(entry: "Entry", source: str = "sdcore") -> dict[str, Any]:
    return {
        "name": entry.name,
        "order": entry.order,
        "nfe": entry.nfe,
        "stochastic": entry.stochastic,
        "paper": entry.paper,
        "also": list(entry.labels),
        "tableau": entry.tableau or None,
        "from": source,
    }


def _tableau(entry: "Entry") -> list[str]:
    """What other solvers are as a Runge-Kutta method; those that are called so need no word."""
    named = entry.tableau and not entry.tableau.startswith(f"{entry.name} in ")
    known = named or entry.name == "heun"
    return [f"the tableau {entry.tableau}"] if known else []
