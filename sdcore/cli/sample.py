"""`sdcore sample`: pictures from prompts."""

from __future__ import annotations

from typing import Any

import click

from sdcore.cli.adapters import networks_of, request_of
from sdcore.cli.options import Drawing, choose_seeds, chosen_spacing, read_prompts
from sdcore.cli.output import Output


@click.command(cls=Drawing)
@click.argument("prompt", nargs=-1)
@click.option("--prompts", metavar="FILE", help="One prompt a line; - reads standard input.")
def sample(prompt: tuple[str, ...], prompts: str | None, **options: Any) -> None:
    """Draw pictures of PROMPT... and print their paths."""
    texts = read_prompts(prompt, prompts)
    seeds = choose_seeds(options["seed"], options["count"])
    options["spacing"] = chosen_spacing(options)
    output = Output(options["out"], len(texts) * len(seeds))

    from sdcore.cli.draw import draw
    from sdcore.prepare import complete, parts_of

    networks = networks_of(options)
    request = request_of(options, prompts=texts, seeds=seeds)
    parts = parts_of(request, networks)
    settings = complete(request, networks, parts)
    drawn = "" if options["seed"] else "seed " + "-".join(map(str, sorted({seeds[0], seeds[-1]})))
    draw(networks, settings, parts, output, options, drawn)
