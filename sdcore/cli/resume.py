"""`sdcore resume`: a run that was stopped, from where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.echo import tell
from sdcore.cli.jobs import Batch, jobs_of, template_of
from sdcore.cli.options import Drawing
from sdcore.cli.output import Output
from sdcore.cli.prompt_lists import Asked
from sdcore.cli.state import check_state
from sdcore.errors import InputError
from sdcore.settings import EXTRA, OPTIONS, START, Options, Settings, inherited

if TYPE_CHECKING:
    from sdcore.sampling import State

# What a run began with, and cannot be changed on its way.
BEGUN = ("model", "unet", "vae", "variant", "revision", "ema", "width", "height", "refiner")


@click.command(cls=Drawing)
@click.argument("file", metavar="STATE")
@click.option("--prompt", metavar="TEXT", help="Other words for the steps that are left.")
def resume(file: str, prompt: str | None, **options: Any) -> None:
    """Go on from STATE, a file that `sdcore sample --state` left, and print the pictures' paths.

    STATE itself stays as it is; --state names another file to keep where this run stands.

    Nothing else said, the pictures are equal to the bit to those of a run that was never stopped.
    Any option of the steps changes those that are left: --scheduler, --spacing, --steps, --cfg,
    --guidance, --prompt ... Then the steps below the noise level of STATE are those of the new
    schedule. The pictures say what was changed and where.
    """
    from sdcore.cli.adapters import base_of, overlaid, request_of
    from sdcore.cli.draw import draw
    from sdcore.inversion import Recorded
    from sdcore.loading import load
    from sdcore.prepare import complete, parts_of
    from sdcore.sampling import State
    from sdcore.state_file import read
    from sdcore.trust import check_inherited

    stood, held = State.load(file), read(file)
    old = _settings(file, held.settings)
    given = {name for name, value in options.items() if value not in (None, ())}
    for name in sorted(_fixed() & given):
        raise InputError(
            f"--{name.replace('_', '-')} is what {file} began with: it cannot be changed midway"
        )

    def taken(chosen: Mapping[str, Any]) -> Mapping[str, Any]:
        over = inherited(vars(old[0]), chosen)
        check_inherited(over)
        return over

    words = old[0].prompt if prompt is None else prompt
    jobs = jobs_of([Asked(words)], options, old[0].seed, taken, typed=prompt is not None)
    if [len(job) for job in jobs] != [1]:
        raise InputError("resume goes on with one run: give each option once, and one prompt")
    check_state(options, jobs)
    (job,) = jobs
    output = Output(options["out"], len(old))

    networks = overlaid(load(**base_of(job.chosen)), job.chosen)
    request = request_of(job.chosen, prompts=job.prompts, seeds=old[0].seed)
    parts = parts_of(request, networks)
    shared = complete(request, networks, parts)[0]
    _check_files(file, old[0], shared)
    negative = job.chosen["negative"] if "negative" in given else None
    asked = None if prompt is None else (job.prompts[0], template_of(job, job.prompts[0]))
    new = [_gone_on(each, shared, asked, negative, stood) for each in old]
    noise = Recorded(held.noise) if held.noise else None
    sigmas = held.sigmas if _same_schedule(old[0], shared) else ()
    batch = Batch(tuple(new), parts, {}, stood, noise, sigmas)
    draw(iter([(networks, [batch])]), output, options | {"batch": len(new)})


def _same_schedule(old: Settings, new: Settings) -> bool:
    names = ("scheduler", "spacing", "steps", "tail")
    return all(getattr(old, name) == getattr(new, name) for name in names)


def _fixed() -> set[str]:
    started = {name for name, option in OPTIONS.items() if option.group in (START, EXTRA)}
    return {*BEGUN, *started, "seed", "count", "batch"} - {"handover"}


def _settings(path: str, texts: Sequence[str]) -> list[Settings]:
    if not texts:
        raise InputError(f"{path} holds no settings: it is gone on with in Python, State.load")
    try:
        return [Settings.from_json(text) for text in texts]
    except InputError as error:
        raise InputError(f"{path} cannot be gone on with: {error}") from None


def _check_files(path: str, old: Settings, new: Settings) -> None:
    """Raises InputError where the model, or the picture it began with, is another one by now."""
    from sdcore.prepare import changed

    for name in changed(old, new):
        if not name.endswith(".py"):
            raise InputError(f"{name} has changed since: {path} is the state of another model")
        tell(f"{name} has changed since")


def _gone_on(
    old: Settings,
    shared: Settings,
    asked: tuple[str, str | None] | None,
    negative: str | None,
    state: State,
) -> Settings:
    """The settings of a picture for the steps that are left, with what is changed and where.

    asked: another prompt, and what it was drawn from.
    """
    prompt, template = (old.prompt, old.template) if asked is None else asked
    new = replace(
        shared,
        prompt=prompt,
        negative=old.negative if negative is None else negative,
        seed=old.seed,
        template=template,
        asked=old.asked,
    )
    names = ["prompt", "negative", *(f.name for f in fields(Options)), "loras", "embeddings"]
    said = [
        f"{name} {getattr(old, name)} -> {getattr(new, name)}"
        for name in names
        if getattr(old, name) != getattr(new, name)
    ]
    where = "" if state.sigma is None else f"from sigma {state.sigma:.4g}: "
    return replace(new, changes=(*old.changes, *([where + ", ".join(said)] if said else [])))
