"""`sdcore rerun`: a picture once more, from the settings inside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sdcore.cli.echo import echo, tell
from sdcore.cli.jobs import jobs_of, ready
from sdcore.cli.options import Drawing, told_seeds
from sdcore.cli.output import Output
from sdcore.cli.prompt_lists import Asked
from sdcore.cli.state import check_state
from sdcore.settings import Settings, inherited
from sdcore.version import VERSION


@click.command(cls=Drawing)
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--prompt", metavar="TEXT", multiple=True, help="Other words.")
def rerun(picture: Path, prompt: tuple[str, ...], **options: Any) -> None:
    """Draw PICTURE again, equal to the bit on the same machine with as many threads.

    Any option overrides what the picture says. Another --scheduler comes with its own spacing and
    eta, another --model with what it predicts and is told, unless these are given too. A file of
    code that the picture names (a solver of one's own) is run only where you name it again.
    """
    from sdcore.images import read_settings
    from sdcore.trust import check_inherited

    old = read_settings(picture)

    def taken(chosen: Mapping[str, Any]) -> Mapping[str, Any]:
        over = inherited(vars(old), chosen)
        check_inherited(over)
        return over

    asked = [Asked(each) for each in prompt or (old.prompt,)]
    jobs = jobs_of(asked, options, old.seed, taken)
    check_state(options, jobs)
    output = Output(options["out"], sum(map(len, jobs)))
    for change in old.changes:
        tell(f"{picture} was changed midway, {change}; this draws it whole as it ended")
    if old.version != VERSION:
        echo(f"drawn by sdcore {old.version}; this is {VERSION}", err=True)

    from sdcore.cli.draw import draw
    from sdcore.prepare import changed

    def look(new: Settings) -> None:
        for name in changed(old, new):
            tell(f"{name} has changed since")

    first = told_seeds(options["seed"], jobs[0].seeds) if options["seed"] else ""
    draw(ready(jobs, look), output, options, first)
