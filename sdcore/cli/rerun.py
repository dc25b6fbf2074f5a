"""`sdcore rerun`: a picture once more, from the settings inside it."""

from pathlib import Path
from typing import Any

import click

from sdcore import __version__
from sdcore.cli.options import choose_seeds, drawing_options
from sdcore.cli.output import Output


@click.command()
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--prompt", metavar="TEXT", help="Other words.")
@drawing_options
def rerun(picture: Path, prompt: str | None, **options: Any) -> None:
    """Draw PICTURE again, equal to the bit on the same machine.

    Any option overrides what the picture says. Another --scheduler comes with its own spacing and
    eta, unless these are given too.
    """
    from sdcore.images import read_settings

    old = read_settings(picture)

    def chosen(name: str) -> Any:
        return getattr(old, name) if options[name] is None else options[name]

    seeds = choose_seeds(options["seed"], options["count"], drawn=old.seed)
    output = Output(options["out"], len(seeds))
    if old.version != __version__:
        click.echo(f"drawn by sdcore {old.version}; this is {__version__}", err=True)

    from sdcore.cli.draw import draw
    from sdcore.pipeline import load

    same = options["scheduler"] is None
    run = load(chosen("model"), chosen("device"), chosen("dtype")).prepare(
        old.prompt if prompt is None else prompt,
        chosen("negative"),
        seeds,
        scheduler=chosen("scheduler"),
        spacing=chosen("spacing") if same else options["spacing"],
        eta=chosen("eta") if same else options["eta"],
        steps=chosen("steps"),
        cfg=chosen("cfg"),
        width=chosen("width"),
        height=chosen("height"),
        grammar=chosen("grammar"),
        clip_skip=chosen("clip_skip"),
    )
    draw(run, options["batch"], output, options["sheet"], options["steps_sheet"])
