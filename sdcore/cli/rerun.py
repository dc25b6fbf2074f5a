"""`sdcore rerun`: a picture once more, from the settings inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sdcore.cli.adapters import networks_of, request_of
from sdcore.cli.echo import echo, tell
from sdcore.cli.options import Drawing, choose_seeds, chosen_spacing
from sdcore.cli.output import Output
from sdcore.settings import inherited
from sdcore.version import VERSION


@click.command(cls=Drawing)
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--prompt", metavar="TEXT", help="Other words.")
def rerun(picture: Path, prompt: str | None, **options: Any) -> None:
    """Draw PICTURE again, equal to the bit on the same machine.

    Any option overrides what the picture says. Another --scheduler comes with its own spacing and
    eta, another --model with what it predicts and is told, unless these are given too. A file of
    code that the picture names (a solver of one's own) is run only where you name it again.
    """
    from sdcore.images import read_settings
    from sdcore.trust import check_inherited

    old = read_settings(picture)
    options["spacing"] = chosen_spacing(options)
    taken = inherited(old, options)
    check_inherited(taken)
    chosen = options | taken
    seeds = choose_seeds(options["seed"], options["count"], drawn=old.seed)
    output = Output(options["out"], len(seeds))
    if old.version != VERSION:
        echo(f"drawn by sdcore {old.version}; this is {VERSION}", err=True)

    from sdcore.cli.draw import draw
    from sdcore.prepare import changed, complete, parts_of

    networks = networks_of(chosen)
    request = request_of(chosen, prompts=old.prompt if prompt is None else prompt, seeds=seeds)
    parts = parts_of(request, networks)
    settings = complete(request, networks, parts)
    for name in changed(old, settings[0]):
        tell(f"{name} has changed since")
    draw(networks, settings, parts, output, options)
