"""`sdcore sample`: pictures from prompts."""

from __future__ import annotations

from typing import Any

import click

from sdcore.cli.echo import tell
from sdcore.cli.jobs import jobs_of, ready, told_seeds
from sdcore.cli.options import Drawing
from sdcore.cli.output import Output, form_of
from sdcore.cli.presets import save_preset as keep_preset
from sdcore.cli.prompt_lists import read_prompts
from sdcore.cli.state import check_state


@click.command(cls=Drawing)
@click.argument("prompt", nargs=-1)
@click.option("--prompt", "more", metavar="TEXT", multiple=True, help="The same as PROMPT.")
@click.option(
    "--prompts",
    metavar="FILE",
    help="One a line, with options of its own behind it; - reads standard input.",
)
@click.option("--save-preset", metavar="NAME", help="Keep these options as a preset.")
@click.pass_context
def sample(
    ctx: click.Context,
    prompt: tuple[str, ...],
    more: tuple[str, ...],
    prompts: str | None,
    save_preset: str | None,
    **options: Any,
) -> None:
    """Draw pictures of PROMPT... and print their paths.

    An option that is given several times draws a picture for each of its values, and several such
    options one for each combination: --scheduler euler --scheduler heun --steps 5 --steps 10. With
    --sheet they are laid out in rows and columns.
    """
    if save_preset is not None:
        tell(f"preset {save_preset} saved in {keep_preset(ctx, save_preset)}")
        if not (prompt or more or prompts):
            return
    asked = read_prompts((*prompt, *more), prompts)
    if len(prompt) > 1 and not any(" " in each for each in prompt):
        tell(
            f"{len(prompt)} prompts of one word each; a sentence wants quotes: "
            f'sdcore sample "{" ".join(prompt)}"'
        )
    jobs = jobs_of(asked, options, drawn=None)
    check_state(options, jobs)
    output = Output(options["out"], sum(map(len, jobs)), form_of(options))

    from sdcore.cli.draw import draw

    draw(ready(jobs), output, options, told_seeds(jobs))
