"""`sdcore sample`: pictures from prompts."""

from typing import Any

import click

from sdcore.cli.options import choose_seeds, drawing_options, read_prompts
from sdcore.cli.output import Output


@click.command()
@click.argument("prompt", nargs=-1)
@click.option("--prompts", metavar="FILE", help="One prompt a line; - reads standard input.")
@drawing_options
def sample(prompt: tuple[str, ...], prompts: str | None, **options: Any) -> None:
    """Draw pictures of PROMPT... and print their paths."""
    texts = read_prompts(prompt, prompts)
    seeds = choose_seeds(options["seed"], options["count"])
    output = Output(options["out"], len(texts) * len(seeds))
    steps, cfg, model = options["steps"], options["cfg"], options["model"]

    from sdcore.cli.draw import draw
    from sdcore.pipeline import load

    sd = load("picturebook" if model is None else model, options["device"], options["dtype"])
    run = sd.prepare(
        texts,
        options["negative"],
        seeds,
        scheduler=options["scheduler"],
        spacing=options["spacing"],
        eta=options["eta"],
        steps=20 if steps is None else steps,
        cfg=7.5 if cfg is None else cfg,
        width=options["width"],
        height=options["height"],
        grammar="plain" if options["grammar"] is None else options["grammar"],
        clip_skip=1 if options["clip_skip"] is None else options["clip_skip"],
    )
    if options["seed"] is None:
        click.echo("seed " + "-".join(map(str, sorted({seeds[0], seeds[-1]}))), err=True)
    draw(run, options["batch"], output, options["sheet"], options["steps_sheet"])
