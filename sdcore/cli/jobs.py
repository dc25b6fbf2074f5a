"""What a command is to draw, taken apart into jobs: pictures that differ in words and seeds alone.

A list of prompts with options of their own, options that are given several times, wildcards and
adapters named in prompts all come down to a list of jobs; whoever draws sees nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sdcore.chosen import base_of, overlaid, request_of
from sdcore.cli.echo import tell
from sdcore.cli.options import asks_for_random, choose_seeds, chosen_spacing, products
from sdcore.cli.prompt_lists import Asked
from sdcore.errors import InputError
from sdcore.garbage import collection_paused
from sdcore.paths import path_of

if TYPE_CHECKING:
    from sdcore.inversion import Recorded
    from sdcore.networks import Networks
    from sdcore.request import Parts
    from sdcore.sampling import State
    from sdcore.settings import Settings

ON_THE_WAY = ("towards", "variation")
Texts = tuple[str, ...]
Look = Callable[["Networks", "Settings"], None]


@dataclass(frozen=True)
class Job:
    """Prompts times seeds, under one set of options."""

    prompts: Texts
    seeds: tuple[int, ...]
    chosen: Mapping[str, Any]  # options by name, each with its one value
    labels: Mapping[str, Any] = field(default_factory=dict)  # of the options given several times
    templates: Mapping[str, str] = field(default_factory=dict)  # prompt -> what it was drawn from
    tagged: Mapping[str, str] = field(default_factory=dict)  # prompt -> the same with its adapters
    at_random: bool = False  # whether the seeds were

    def __len__(self) -> int:
        return len(self.prompts) * len(self.seeds)


@dataclass(frozen=True)
class Batch:
    """Pictures that may be drawn at once."""

    settings: tuple[Settings, ...]
    parts: Parts
    labels: Mapping[str, Any]
    start: State | None = None  # where they stand already
    noise: Recorded | None = None  # and the draws that they go on with, where they are no seed's
    sigmas: tuple[float, ...] = ()  # and the noise levels, where they are not laid anew


def jobs_of(
    asked: Sequence[Asked],
    options: Mapping[str, Any],
    drawn: int | None,
    taken: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda options: {},
    typed: bool = True,
) -> list[Job]:
    """One job for each combination of options, of the prompts that go with it.

    options: as click hands them over. drawn: the seed where none is given; None: a random one.
    taken: what a picture that is drawn again adds to one combination.
    typed: whether the prompts are the user's own.

    Raises InputError, too, where the options of a list of prompts name what only a user may.
    """
    with collection_paused():  # torch comes with it
        from sdcore.trust import check_inherited

    jobs: list[Job] = []
    common = secrets.randbits(32) if drawn is None else drawn
    for own, group in groupby(asked, key=lambda each: each.options):
        check_inherited(_foreign(own, options), "the list of prompts")
        prompts = tuple(each.prompt for each in group)
        given = dict(options) | dict(own)
        if "loras" in own:
            given["loras"] = (*options["loras"], *own["loras"])
        combinations = products(given)
        varying = [name for name in given if len({str(each[name]) for each in combinations}) > 1]
        seeds = tuple(choose_seeds(given["seed"], given["count"], common))
        at_random = asks_for_random(given["seed"]) or (drawn is None and not given["seed"])
        for chosen in combinations:
            labels = {name: chosen[name] for name in varying}
            chosen["spacing"] = chosen_spacing(chosen)
            job = Job(prompts, seeds, {**chosen, **taken(chosen)}, labels, at_random=at_random)
            for part in _expanded(job):
                jobs += _untagged(part, typed)
    return jobs


def _foreign(own: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the options of a list of prompts, those that the command line does not name as well.

    A model goes with what is read of it: another revision of the user's model is another one.
    """
    foreign: dict[str, Any] = {}
    for name, value in own.items():
        named = options.get(name)
        if isinstance(value, tuple):
            value = tuple(each for each in value if each not in (named or ()))
        if value not in ((), named):
            foreign[name] = value
    edition = ("model", "variant", "revision")
    if any(name in foreign for name in edition):
        foreign |= {name: own.get(name, options.get(name)) for name in edition}
    return foreign


def frames_of(jobs: Sequence[Job], count: int) -> list[Job]:
    """The job's film as one job for each frame, labelled by its number.

    Raises InputError for several jobs, and for what a film brings itself.
    """
    from sdcore import film

    if len(jobs) != 1:
        raise InputError("a film is drawn with one set of options: give each option once")
    (job,) = jobs
    for name in ON_THE_WAY:
        if job.chosen.get(name) is not None:
            raise InputError(f"--{name} is what a film changes: leave it out")
    keys = film.keys_of(job.prompts, job.seeds)
    frames = film.frames_of(keys, count)
    digits = max(4, len(str(count)))
    return [
        replace(
            job,
            prompts=(frame.prompt,),
            seeds=(frame.seed,),
            chosen={**job.chosen, "towards": frame.towards, "variation": frame.variation},
            labels={"frame": f"{number:0{digits}}"},
        )
        for number, frame in enumerate(frames, 1)
    ]


def told_seeds(jobs: Sequence[Job]) -> str:
    """The line that tells which seeds were drawn; "" where none was."""
    seeds = sorted({seed for job in jobs if job.at_random for seed in job.seeds})
    if not seeds:
        return ""
    if seeds[-1] - seeds[0] == len(seeds) - 1:
        return "seed " + "-".join(map(str, sorted({seeds[0], seeds[-1]})))
    return "seeds " + ", ".join(map(str, seeds[:8])) + " ..." * (len(seeds) > 8)


def _expanded(job: Job) -> Iterator[Job]:
    """The job with its wildcards drawn: all at once, or for each seed one."""
    from sdcore.prompts import wildcards

    folder, how = path_of(job.chosen["wildcard_dir"]), job.chosen["wildcards"]
    if how is None:
        yield job
    elif how == "all":
        drawn = {each: text for text in job.prompts for each in wildcards.every(text, folder)}
        yield replace(job, prompts=tuple(drawn), templates=drawn)
    else:
        for text in job.prompts:
            for seed in job.seeds:
                one = wildcards.one(text, folder, seed)
                yield replace(job, prompts=(one,), seeds=(seed,), templates={one: text})


def _untagged(job: Job, typed: bool) -> Iterator[Job]:
    """The job with the adapters that its prompts name: one for each set of them."""
    if job.chosen.get("grammar") != "a1111" or not any("<" in text for text in job.prompts):
        yield job
        return
    from sdcore.a1111 import untagged

    said = [(text, *untagged(text)) for text in job.prompts]
    for tags, group in groupby(said, key=lambda each: each[2]):
        same = list(group)
        own = typed and all(_is_typed(tag[0], text, job) for text, _, _ in same for tag in tags)
        loras = (*job.chosen["loras"], *(tagged_lora(tag, job.chosen, own) for tag in tags))
        templates = {words: job.templates[text] for text, words, _ in same if text in job.templates}
        prompts = tuple(words for _, words, _ in same)
        chosen = {**job.chosen, "loras": loras}
        tagged = {words: text for text, words, _ in same}
        yield replace(job, prompts=prompts, chosen=chosen, templates=templates, tagged=tagged)


def _is_typed(name: str, text: str, job: Job) -> bool:
    """Whether the user wrote <lora:NAME>, and no line of a wildcard's file brought it."""
    template = job.templates.get(text, text)
    return any(f"<{kind}:{name}" in template for kind in ("lora", "lyco"))


def tagged_lora(tag: tuple[str, float, float], chosen: Mapping[str, Any], typed: bool) -> str:
    """The adapter of <lora:NAME:0.8>, as --lora takes it. Raises InputError where it is not here.

    typed: by the user, so that NAME may be a path; else it is a name in the folders and no other.
    """
    from sdcore.checkpoints.library import by_name
    from sdcore.strengths import written_lora
    from sdcore.trust import is_elsewhere

    name, unet, text = tag
    if is_elsewhere(name):
        raise InputError(f"<lora:{name}> is on another machine: name it by --lora {name}")
    folders = (*chosen["lora_dir"], *chosen["models"])
    found = by_name(name, folders)
    if not found and typed:
        places = (path_of(f"{name}{ending}") for ending in ("", ".safetensors", ".pt", ".ckpt"))
        found = [place for place in places if place.exists()]
    if not found:
        where = (
            f"in {', '.join(folders)}" if folders else "here: give its folder, --lora-dir FOLDER"
        )
        raise InputError(f"the adapter of <lora:{name}> is not {where}")
    return written_lora(str(found[0]), unet, text)


def ready(
    jobs: Sequence[Job], look: Look = lambda networks, settings: None
) -> Iterator[tuple[Networks, list[Batch]]]:
    """The jobs that are drawn with the same networks, and these, one such group after the other.

    All jobs of a group are completed, and so found to be right, before any of it is drawn.
    look: gets the networks, and the settings of every first picture of a job.
    """
    from sdcore.complete import complete
    from sdcore.loading import load
    from sdcore.picture_options import Options
    from sdcore.request import parts_of

    source: Mapping[str, Any] | None = None
    base: Any = None
    for key, group in groupby(sorted(jobs, key=_order(jobs)), key=_networks_key):
        wanted = list(group)
        chosen = wanted[0].chosen
        if source != base_of(chosen):
            base = None  # two large models at once are one too many
            source = base_of(chosen)
            base = load(**source)
        networks = overlaid(base, chosen, tell)
        if all(_networks_key(job) == key for job in jobs):
            base = None
        made: dict[str, tuple[Any, Parts]] = {}  # by their options: a refiner is loaded once
        batches: list[Batch] = []
        for job in wanted:
            words = {"prompts": job.prompts, "seeds": job.seeds}
            own = {name: job.chosen.get(name) for name in ON_THE_WAY}  # of each frame of a film
            same = repr([job.chosen.get(each.name) for each in fields(Options)
                         if each.name not in own])  # fmt: skip
            if same not in made:
                request = request_of(job.chosen, **words)
                made[same] = request, parts_of(request, networks)
            request, parts = made[same]
            request = replace(request, negative=job.chosen["negative"], **words, **own)
            settings = complete(request, networks, parts)
            look(networks, settings[0])
            settings = tuple(
                replace(each, template=template_of(job, each.prompt)) for each in settings
            )
            batches.append(Batch(settings, parts, job.labels))
        yield networks, list(_joined(batches))


def template_of(job: Job, prompt: str) -> str | None:
    """What the prompt was drawn from; None where that is itself."""
    text = job.templates.get(prompt)
    return None if text == prompt else text


def _joined(batches: Sequence[Batch]) -> Iterator[Batch]:
    """Those that follow each other and differ in words and seeds alone are one."""
    for _, group in groupby(batches, key=lambda b: (_shared(b.settings[0]), id(b.parts), b.labels)):
        same = list(group)
        yield replace(same[0], settings=tuple(each for batch in same for each in batch.settings))


def _shared(settings: Settings) -> Settings:
    return replace(settings, prompt="", negative=None, seed=0, template=None)


def _networks_key(job: Job) -> str:
    return repr((base_of(job.chosen), job.chosen["loras"], job.chosen["embeddings"]))


def _order(jobs: Sequence[Job]) -> Callable[[Job], int]:
    """Jobs of the same networks come together, where the first of them stands."""
    first: dict[str, int] = {}
    for job in jobs:
        first.setdefault(_networks_key(job), len(first))
    return lambda job: first[_networks_key(job)]
