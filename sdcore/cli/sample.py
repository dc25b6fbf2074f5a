"""`sdcore sample`: pictures from prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.echo import tell
from sdcore.cli.jobs import Look, frames_of, jobs_of, ready, told_seeds
from sdcore.cli.options import Drawing
from sdcore.cli.output import Output, form_of
from sdcore.cli.presets import save_preset as keep_preset
from sdcore.cli.prompt_lists import read_prompts
from sdcore.cli.state import check_state

if TYPE_CHECKING:
    from sdcore.networks import Networks
    from sdcore.settings import Settings


@click.command(cls=Drawing)
@click.argument("prompt", nargs=-1)
@click.option("--prompt", "more", metavar="TEXT", multiple=True, help="The same as PROMPT.")
@click.option(
    "--prompts",
    metavar="FILE",
    help="One a line, with options of its own behind it; - reads standard input.",
)
@click.option("--save-preset", metavar="NAME", help="Keep these options as a preset.")
@click.option("--film", type=int, metavar="FRAMES", help="A film from each to the next of them.")
@click.option(
    "--film-rate", type=float, default=12.0, show_default=True, help="Its frames a second."
)
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

    --film 48 draws 48 frames on the way between the prompts, or the seeds, or both in pairs, into a
    folder of their own, and an animated WebP beside it.
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
    seeds, film = told_seeds(jobs), options["film"] is not None
    if film:
        from sdcore.film import check_rate

        check_rate(options["film_rate"])
        jobs = frames_of(jobs, options["film"])
    check_state(options, jobs)
    output = Output(options["out"], sum(map(len, jobs)), form_of(options), film)

    from sdcore.cli.draw import draw

    draw(ready(jobs, _jumps()) if film else ready(jobs), output, options, seeds)


def _jumps() -> Look:
    """What tells, once, where frames that follow each other are drawn with other draws."""
    seeds: set[int] = set()

    def look(networks: Networks, settings: Settings) -> None:
        from sdcore.schedulers import resolve
        from sdcore.schedulers.rehearsal import rehearse

        before = len(seeds)
        seeds.add(settings.seed)
        if (before, len(seeds)) != (1, 2):
            return
        solver = resolve(settings.scheduler, None, settings.eta).solver
        if any(step.draws for step in rehearse(solver, (9.0, 3.0, 1.0, 0.0))):
            tell(
                f"{settings.scheduler} draws noise in the loop, each seed its own: the film jumps "
                "where one seed takes over from another; of euler or dpmpp_2m it does not"
            )

    return look
