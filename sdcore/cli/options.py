"""The options that `sample` and `rerun` share, and how seeds and prompts are read."""

import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from sdcore.errors import InputError
from sdcore.options import Option
from sdcore.paths import path_of
from sdcore.settings import EXTRA, MODEL, OPTIONS, SAMPLING, WORDS

MAX_PICTURES = 10_000  # of one command; beyond it a range of seeds is a slip of the finger
_SEEDS = re.compile(r"(-?\d{1,20})(?:-(\d{1,20}))?")


class _Pair(click.ParamType):
    """Two whole numbers with a sign between them, as a tuple."""

    def __init__(self, sign: str, example: str) -> None:
        self.name, self.sign, self.example = example, sign, example

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        numbers = re.fullmatch(rf"(\d{{1,9}}){self.sign}(\d{{1,9}})", value.strip().lower())
        if numbers is None:
            raise InputError(f"{param.opts[0]} is written like {self.example}, not {value!r}")
        return int(numbers[1]), int(numbers[2])


_PAIRS = {
    "size": (_Pair("x", "1024x768"), "WxH"),
    "corner": (_Pair(",", "0,0"), "LEFT,TOP"),
}


def _fallback(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value not in (None, "size"):
        why = ": fewer steps need no less memory" if "steps" in value else ""
        raise InputError(f"--fallback allows a smaller picture, size, and not {value!r}{why}")
    return value


def _option(*names: str, **settings: Any) -> click.Option:
    return click.Option(names, **settings)


def declared(name: str, option: Option) -> click.Option:
    """The option of a command that `sdcore.settings` declares."""
    flag = f"--{name.replace('_', '-')}" if option.flag is None else option.flag
    if option.kind is bool:
        return _option(flag, name, is_flag=True, default=None, help=option.help)
    kind, metavar = _PAIRS.get(str(option.kind), (option.kind, option.metavar))
    more: Any = {"multiple": True} if option.many else {}
    return _option(flag, name, type=kind, metavar=metavar, help=option.help, **more)


# What belongs to a command and not to a picture.
_COMMAND: Mapping[str, Sequence[click.Option]] = {
    "Sampling": [
        _option("--seed", metavar="SEEDS", help="E.g. 7 or 0-3,7; none: drawn, and printed."),
        _option("--count", type=int, help="How many pictures of each prompt."),
        _option("--sigmas", metavar="LIST", help="The noise levels themselves, e.g. 14.6,5,1,0."),
        _option("--timesteps", metavar="LIST", help="Or the timesteps, e.g. 999,750,500,250."),
    ],
    "Model": [
        _option(
            "--fallback",
            metavar="size",
            callback=_fallback,
            help="When memory runs out even so: a smaller picture.  [default: an error]",
        ),
    ],
    "Output": [
        _option(
            "--out",
            metavar="PATH",
            default="out",
            show_default=True,
            help="A .png file or a folder.",
        ),
        _option("--batch", type=int, help="How many are drawn at once.  [default: 1]"),
        _option("--sheet", is_flag=True, help="Also all pictures on one labelled sheet."),
        _option("--steps-sheet", is_flag=True, help="Also what each step thought, as a strip."),
    ],
}


def _groups() -> dict[str, list[click.Option]]:
    """Every option under its heading: those of a picture first."""
    groups: dict[str, list[click.Option]] = {name: [] for name in (WORDS, SAMPLING, MODEL, EXTRA)}
    for name, option in OPTIONS.items():
        groups[option.group].append(declared(name, option))
    for name, options in _COMMAND.items():
        groups.setdefault(name, []).extend(options)
    return groups


_GROUPS = _groups()


class Drawing(click.Command):
    """A command that draws: its own options, then every one above, under a heading each."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for options in _GROUPS.values():
            self.params.extend(options)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shared = [option for options in _GROUPS.values() for option in options]
        mine = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        own = [each for each in mine if each not in shared]
        for title, options in {"Options": own, **_GROUPS}.items():
            lines = [line for each in options if (line := each.get_help_record(ctx)) is not None]
            with formatter.section(title):
                formatter.write_dl(lines)


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


def choose_seeds(text: str | None, count: int | None, drawn: int | None = None) -> list[int]:
    """The seeds of `--seed` and `--count` together.

    `count` follows on from a single seed. Without a seed it starts from `drawn`, or else from a
    random one.
    """
    if count is not None and not 1 <= count <= MAX_PICTURES:
        raise InputError(f"--count is 1 to {MAX_PICTURES}, not {count}")
    seeds = None if text is None else parse_seeds(text)
    if seeds is None:
        seeds = [secrets.randbits(32) if drawn is None else drawn]
    if count is None or count == len(seeds):
        return seeds
    if len(seeds) > 1:
        raise InputError(f"--seed names {len(seeds)} seeds and --count wants {count}: give one")
    return list(range(seeds[0], seeds[0] + count))


def read_prompts(given: Sequence[str], file: str | None) -> list[str]:
    """The prompts of the command line and those of a file ('-': stdin), one a line."""
    prompts = list(given)
    if file is not None:
        try:
            raw = sys.stdin.buffer.read() if file == "-" else path_of(file).read_bytes()
            lines = raw.decode("utf-8-sig").splitlines()
        except OSError as error:
            raise InputError(f"cannot read prompts from {file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"cannot read prompts from {file}: it is no UTF-8 text") from None
        prompts += [line.strip() for line in lines if line.strip()]
        if not prompts:
            raise InputError(f"{file} holds no prompts")
    if not prompts:
        raise InputError('no prompt: write one, as in sdcore sample "a red house at sunset"')
    if any("\ud800" <= letter <= "\udfff" for text in prompts for letter in text):
        raise InputError("a prompt is no text: it holds bytes that are not UTF-8")
    return prompts
