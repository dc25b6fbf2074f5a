"""`sdcore rerun`: a picture once more, from the settings inside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.adapters import with_adapters
from sdcore.cli.echo import echo, tell
from sdcore.cli.options import (
    FAMILY,
    LISTS,
    PLAIN,
    SOURCE,
    Drawing,
    choose_seeds,
    chosen_spacing,
)
from sdcore.cli.output import Output
from sdcore.version import VERSION

if TYPE_CHECKING:
    from sdcore.pipeline import StableDiffusion
    from sdcore.run import Run


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

    # Another model or scheduler comes with what is its own.
    foreign = (
        (*FAMILY, *SOURCE, "prediction_type", "refiner")
        if options["model"] not in (None, old.model)
        else ()
    )
    if options["scheduler"] not in (None, old.scheduler):
        foreign += ("spacing", "eta", "noise", "tail")
    if options["spacing"] is not None:  # a list says itself how many steps there are
        foreign += ("tail", "steps") if options["spacing"].startswith(LISTS) else ("tail",)

    def chosen(name: str) -> Any:
        given = options[name]
        return getattr(old, name) if given is None and name not in foreign else given

    given = options | {"loras": options["lora"], "embeddings": options["embedding"]}
    check_inherited({k: v for k, v in vars(old).items() if not given.get(k) and k not in foreign})
    seeds = choose_seeds(options["seed"], options["count"], drawn=old.seed)
    output = Output(options["out"], len(seeds))
    if old.version != VERSION:
        echo(f"drawn by sdcore {old.version}; this is {VERSION}", err=True)

    from sdcore.cli.draw import draw_what_fits
    from sdcore.enduring import within_memory
    from sdcore.loading import load

    refiner, how = chosen("refiner"), (chosen("device"), chosen("dtype"), chosen("memory"))
    source: Any = {k: v for k in SOURCE if (v := chosen(k)) is not None}
    over = options["lora"] or old.loras, options["embedding"] or old.embeddings
    sd = load(chosen("model"), *how, **source)
    sd = within_memory(lambda sd: with_adapters(sd, *over), sd, tell, "the adapters")
    second = None if refiner is None else load(refiner, *how)
    plain = {name: chosen(name) for name in (*PLAIN, *FAMILY)}
    words = old.prompt if prompt is None else prompt

    def prepare(sd: StableDiffusion, size: dict[str, int]) -> Run:
        wanted: Any = plain | size
        return within_memory(
            lambda sd: sd.prepare(words, chosen("negative"), seeds, refiner=second, **wanted),
            sd,
            tell,
        )

    run = prepare(sd, {})
    repainted = options["image"] is not None or options["mask"] is not None
    if not repainted and run.settings[0].canvas not in (None, old.canvas):
        tell("the image or the mask has changed since")
    draw_what_fits(
        run,
        prepare if options["fallback"] else None,
        options["batch"],
        output,
        options["sheet"],
        options["steps_sheet"],
    )
