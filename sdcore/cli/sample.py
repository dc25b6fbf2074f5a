"""`sdcore sample`: pictures from prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.adapters import with_adapters
from sdcore.cli.echo import echo, tell
from sdcore.cli.options import (
    FAMILY,
    PLAIN,
    SOURCE,
    Drawing,
    choose_seeds,
    chosen_spacing,
    read_prompts,
)
from sdcore.cli.output import Output

if TYPE_CHECKING:
    from sdcore.pipeline import StableDiffusion
    from sdcore.run import Run


@click.command(cls=Drawing)
@click.argument("prompt", nargs=-1)
@click.option("--prompts", metavar="FILE", help="One prompt a line; - reads standard input.")
def sample(prompt: tuple[str, ...], prompts: str | None, **options: Any) -> None:
    """Draw pictures of PROMPT... and print their paths."""
    texts = read_prompts(prompt, prompts)
    seeds = choose_seeds(options["seed"], options["count"])
    options["spacing"] = chosen_spacing(options)
    output = Output(options["out"], len(texts) * len(seeds))
    model, refiner = options["model"], options["refiner"]

    from sdcore.cli.draw import draw_what_fits
    from sdcore.enduring import within_memory
    from sdcore.loading import load

    how = (options["device"], options["dtype"], options["memory"])
    source: Any = {k: v for k, v in options.items() if k in SOURCE and v is not None}
    name = "picturebook" if model is None else model
    over = options["lora"], options["embedding"]
    sd = load(name, *how, **source)
    sd = within_memory(lambda sd: with_adapters(sd, *over), sd, tell, "the adapters")
    second = None if refiner is None else load(refiner, *how)
    plain = {k: v for k, v in options.items() if k in (*PLAIN, *FAMILY) and v is not None}

    def prepare(sd: StableDiffusion, size: dict[str, int]) -> Run:
        wanted: Any = plain | size
        return within_memory(
            lambda sd: sd.prepare(texts, options["negative"], seeds, refiner=second, **wanted),
            sd,
            tell,
        )

    run = prepare(sd, {})
    if options["seed"] is None:
        echo("seed " + "-".join(map(str, sorted({seeds[0], seeds[-1]}))), err=True)
    draw_what_fits(
        run,
        prepare if options["fallback"] else None,
        options["batch"],
        output,
        options["sheet"],
        options["steps_sheet"],
    )
