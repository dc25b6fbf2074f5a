"""The options that `sample` and `rerun` share, and how seeds and prompts are read."""

import itertools
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from sdcore.cli.echo import tell
from sdcore.cli.grouped import Grouped
from sdcore.cli.option_list import COMMAND, declared
from sdcore.errors import InputError
from sdcore.picture_form import format_of
from sdcore.picture_options import (
    EXTRA,
    FILTERS,
    MODEL,
    OPTIONS,
    OUTPUT,
    SAMPLING,
    SECOND,
    START,
    WORDS,
)

MAX_PICTURES = 10_000  # of one command; beyond it a range of seeds is a slip of the finger
_SEEDS = re.compile(r"(-?\d{1,20})(?:-(\d{1,20}))?")


def _groups() -> dict[str, list[click.Option]]:
    """Every option under its heading: those of a picture first."""
    titles = (WORDS, SAMPLING, START, SECOND, MODEL, EXTRA, FILTERS, OUTPUT)
    groups: dict[str, list[click.Option]] = {name: [] for name in titles}
    for name, option in OPTIONS.items():
        groups[option.group].append(declared(name, option))
    for name, options in COMMAND.items():
        groups.setdefault(name, []).extend(options)
    return groups


_GROUPS = _groups()


def drawing_groups() -> dict[str, list[click.Option]]:
    """All options that may differ from prompt to prompt, under their headings."""
    return {
        title: [each for each in options if each.name not in _OF_ALL]
        for title, options in _GROUPS.items()
        if title not in _OF_A_COMMAND
    }


def drawing_options() -> list[click.Option]:
    """The same without the headings."""
    return list(itertools.chain.from_iterable(drawing_groups().values()))


_OF_A_COMMAND = (FILTERS, OUTPUT)
_OF_ALL = ("fallback", "wildcards", "wildcard_dir", "models", "lora_dir")


class Drawing(Grouped):
    """A command that draws: its own options, then every one above."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, groups=_GROUPS, **settings)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            dashed = [each for each in given if re.match(r"-{1,2}\w[^=]* ", each)]
            if not dashed:
                raise
            hint = f"a prompt that begins with a dash stands behind --: -- '{dashed[0]}'"
            why = error.format_message().rstrip(".")
            raise click.UsageError(f"{why}; {hint}", ctx) from None


def products(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the options that are given several times, the last one changing first.

    options: as click hands them over; what was not given is (), and becomes None. Where --out names
        one file there is one combination, of the last values, and a line says so.
    """
    many = {name for name, option in OPTIONS.items() if option.many}
    values = {
        name: tuple(dict.fromkeys(given)) or (None,)
        for name, given in options.items()
        if isinstance(given, tuple) and name in {*OPTIONS, "sigmas", "timesteps"} - many
    }
    several = [name for name, given in values.items() if len(given) > 1]
    if several and format_of(Path(str(options.get("out")))) is not None:
        tell(f"{', '.join(several)}: the last value counts, since --out names one file")
        values = {name: given[-1:] for name, given in values.items()}
    count = math.prod(map(len, values.values()))
    if count > MAX_PICTURES:
        raise InputError(
            f"the options come to {count} pictures of each prompt: {MAX_PICTURES} at most"
        )
    combinations = itertools.product(*values.values())
    return [dict(options) | dict(zip(values, chosen, strict=True)) for chosen in combinations]


def chosen_spacing(options: dict[str, Any]) -> str | None:
    """`--spacing`, `--sigmas` or `--timesteps` as one spacing. Raises InputError for two."""
    lists = {kind: options[kind] for kind in ("sigmas", "timesteps") if options[kind] is not None}
    given = [f"--{name}" for name in ("spacing", *lists) if options[name] is not None]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} both say where the steps are: give one")
    return next((f"{kind}:{values}" for kind, values in lists.items()), options["spacing"])


def parse_seeds(text: str) -> list[int]:
    """'0-3,7' to [0, 1, 2, 3, 7]. Raises InputError for anything else.

    >>> parse_seeds("0-3,7")
    [0, 1, 2, 3, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = _SEEDS.fullmatch(part.strip())
        if match is None:
            raise InputError(f"cannot read the seeds {text!r}: write them like 7 or 0-3,7")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise InputError(f"the seeds {part.strip()!r} run backwards: write {last}-{first}")
        if last - first + len(seeds) >= MAX_PICTURES:
            raise InputError(f"the seeds {text!r} are more than {MAX_PICTURES}")
        seeds.extend(range(first, last + 1))
    return seeds


def choose_seeds(given: Sequence[str], count: int | None, drawn: int | None = None) -> list[int]:
    """The seeds of `--seed` and `--count` together.

    `count` follows on from a single seed. Without a seed it starts from `drawn`, or else from a
    random one; -1 is a random one, as in other tools.
    """
    if count is not None and not 1 <= count <= MAX_PICTURES:
        raise InputError(f"--count is 1 to {MAX_PICTURES}, not {count}")
    seeds = [seed for text in given for seed in parse_seeds(text)]
    seeds = [secrets.randbits(32) if seed == -1 else seed for seed in seeds]
    if not seeds:
        seeds = [secrets.randbits(32) if drawn is None else drawn]
    if count is None or count == len(seeds):
        return seeds
    if len(seeds) > 1:
        raise InputError(f"--seed names {len(seeds)} seeds and --count wants {count}: give one")
    return list(range(seeds[0], seeds[0] + count))


def asks_for_random(given: Sequence[str]) -> bool:
    """Whether one of the seeds is -1."""
    return "-1" in {part.strip() for text in given for part in text.split(",")}
