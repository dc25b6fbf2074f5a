"""`sdcore resume`: a run that was stopped, from where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from sdcore.cli.echo import tell
from sdcore.cli.jobs import Batch, jobs_of, template_of
from sdcore.cli.options import Drawing
from sdcore.cli.output import Output, form_of
from sdcore.cli.prompt_lists import Asked
from sdcore.cli.state import check_state
from sdcore.errors import InputError
from sdcore.settings import Settings, inherited, same_schedule
from sdcore.written import FILES


@click.command(cls=Drawing)
@click.argument("file", metavar="STATE")
@click.option("--prompt", metavar="TEXT", help="Other words for the steps that are left.")
def resume(file: str, prompt: str | None, **options: Any) -> None:
    """Go on from STATE, a file that `sdcore sample --state` left, and print the pictures' paths.

    STATE itself stays as it is; --state names another file to keep where this run stands.

    Nothing else said, the pictures are equal to the bit to those of a run that was never stopped.
    Any option of the steps changes those that are left: --scheduler, --spacing, --steps, --cfg,
    --guidance, --prompt, --seed (of the noise that is still drawn) ... Then the steps below the
    noise level of STATE are those of the new schedule. The pictures say what was changed and where.
    """
    from sdcore.branching import check_draws, fixed, gone_on
    from sdcore.chosen import base_of, overlaid, request_of
    from sdcore.cli.draw import draw
    from sdcore.complete import complete
    from sdcore.inversion import Recorded
    from sdcore.loading import load
    from sdcore.request import parts_of
    from sdcore.sampling import State
    from sdcore.state_file import read
    from sdcore.trust import check_inherited

    stood, held = State.load(file), read(file)
    old = _settings(file, held.settings)
    given = {name for name, value in options.items() if value not in (None, ())}
    for name in sorted({*fixed(), "count", "batch"} & given):
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
    check_draws(old[0], job.seeds[0], len(old), bool(held.noise))
    output = Output(options["out"], len(old), form_of(options))

    networks = overlaid(load(**base_of(job.chosen)), job.chosen, tell)
    request = request_of(job.chosen, prompts=job.prompts, seeds=job.seeds)
    parts = parts_of(request, networks)
    shared = complete(request, networks, parts)[0]
    _check_files(file, old[0], shared)
    negative = job.chosen["negative"] if "negative" in given else None
    asked = None if prompt is None else (job.prompts[0], template_of(job, job.prompts[0]))
    seed = job.seeds[0] if "seed" in given else None
    new = [gone_on(each, shared, stood, seed=seed, asked=asked, negative=negative) for each in old]
    noise = Recorded(held.noise) if held.noise else None
    sigmas = held.sigmas if same_schedule(old[0], shared) else ()
    batch = Batch(tuple(new), parts, {}, stood, noise, sigmas)
    draw(iter([(networks, [batch])]), output, options | {"batch": len(new)})


def _settings(path: str, texts: Sequence[str]) -> list[Settings]:
    if not texts:
        raise InputError(f"{path} holds no settings: it is gone on with in Python, State.load")
    try:
        return [Settings.from_json(text) for text in texts]
    except InputError as error:
        raise InputError(f"{path} cannot be gone on with: {error}") from None


def _check_files(path: str, old: Settings, new: Settings) -> None:
    """Raises InputError where the model, or the picture it began with, is another one by now."""
    from sdcore.complete import changed, packages_changed

    for name in changed(old, new):
        if not name.endswith(FILES):
            raise InputError(f"{name} has changed since: {path} is the state of another model")
        tell(f"{name} has changed since")
    for line in packages_changed(old, new):
        tell(line)
