"""Every option of a command that draws: those of a picture, as `sdcore.picture_options` declares
them, and what belongs to a command and not to a picture."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from sdcore.errors import InputError
from sdcore.options import Option
from sdcore.picture_form import SUFFIXES
from sdcore.picture_options import FILTERS, OUTPUT


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


class Spelt(click.Option):
    """An option that the help shows under its first spelling only.

    says: what other tools call a value -> what it is called here.
    """

    def __init__(self, *names: Any, says: Mapping[str, str] | None = None, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.says = {} if says is None else says

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None:
            return None
        spellings, _ = click.formatting.join_options(self.opts)
        return record[0].replace(spellings, self.opts[0], 1), record[1]

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        values = super().type_cast_value(ctx, value)
        return tuple(self.says.get(v, v) for v in values) if self.says else values


def _option(*names: str, **settings: Any) -> click.Option:
    return Spelt(names, **settings)


def declared(name: str, option: Option) -> click.Option:
    """The option of a command that `picture_options` declares; its values come as a tuple."""
    flag = f"--{name.replace('_', '-')}" if option.flag is None else option.flag
    if option.kind is bool:
        return _option(flag, *option.also, name, is_flag=True, default=None, help=option.help)
    kind, metavar = _PAIRS.get(str(option.kind), (option.kind, option.metavar))
    more: Any = {"multiple": True, "says": dict(option.says)}
    return _option(flag, *option.also, name, type=kind, metavar=metavar, help=option.help, **more)


# What belongs to a command and not to a picture.
COMMAND: Mapping[str, Sequence[click.Option]] = {
    "Words": [
        _option(
            "--wildcards",
            type=click.Choice(["all", "one"]),
            help="Read {a|b} and __file__: every choice, or one by the seed.",
        ),
        _option(
            "--wildcard-dir",
            metavar="FOLDER",
            default=".",
            help="Where __name__ is name.txt.  [default: here]",
        ),
    ],
    "Sampling": [
        _option(
            "--seed",
            "-S",
            "seed",
            metavar="SEEDS",
            multiple=True,
            help="E.g. 7 or 0-3,7; none or -1: drawn, and printed.",
        ),
        _option(
            "--count",
            "--num-images-per-prompt",
            "-n",
            "count",
            type=int,
            help="How many pictures of each prompt.  [default: 1]",
        ),
        _option(
            "--sigmas",
            metavar="LIST",
            multiple=True,
            help="The noise levels themselves, e.g. 14.6,5,1,0.",
        ),
        _option(
            "--timesteps",
            metavar="LIST",
            multiple=True,
            help="Or the timesteps, e.g. 999,750,500,250.",
        ),
    ],
    "Model": [
        _option(
            "--models",
            metavar="FOLDER",
            multiple=True,
            help="Where rerun looks for the model of another tool's picture.",
        ),
        _option(
            "--lora-dir",
            metavar="FOLDER",
            multiple=True,
            help="Where <lora:NAME:0.8> in a prompt is looked for.",
        ),
        _option(
            "--fallback",
            metavar="size",
            callback=_fallback,
            help="When memory runs out even so: a smaller picture.  [default: an error]",
        ),
    ],
    FILTERS: [
        _option(
            "--filter",
            metavar="FILE.py",
            multiple=True,
            help="A filter of your own over every picture, mine.py or mine.py:check.",
        ),
        _option(
            "--safety",
            metavar="FOLDER",
            help="The safety checker in the folder of a Stable Diffusion 1.x.",
        ),
        _option(
            "--safety-action",
            type=click.Choice(["black", "blur", "drop", "flag"]),
            help="What becomes of a picture that it flags.  [default: black]",
        ),
        _option("--c2pa-cert", metavar="FILE", help="Sign each file, by C2PA: the certificates."),
        _option("--c2pa-key", metavar="FILE", help="And their private key."),
        _option("--no-mark", is_flag=True, help="Leave out the mark (XMP) that a model made it."),
    ],
    OUTPUT: [
        _option(
            "--out",
            metavar="PATH",
            default="out",
            show_default=True,
            help="A .png, .jpg or .webp file, or a folder.",
        ),
        _option(
            "--format",
            type=click.Choice(list(SUFFIXES)),
            help="What pictures are written as.  [default: as --out ends, or png]",
        ),
        _option(
            "--quality",
            type=int,
            help="Of jpeg and webp, 1 to 100; a webp of 100 loses nothing.  [default: 95]",
        ),
        _option("--state", metavar="FILE", help="Where it stands, to go on with sdcore resume."),
        _option("--stop-after", type=int, metavar="STEPS", help="Stop there, and leave --state."),
        _option("--record", metavar="FILE", help="Also every step, for sdcore replay and diff."),
        _option(
            "--record-what",
            metavar="LIST",
            default="x,x0,eps",
            show_default=True,
            help="Of x, x0, eps and branches.",
        ),
        _option(
            "--record-every", type=int, default=1, help="Of so many steps one.  [default: each]"
        ),
        _option(
            "--record-dtype",
            metavar="NAME",
            default="float32",
            help="float32, or float16 for half the size.  [default: float32]",
        ),
        _option("--batch", type=int, help="How many are drawn at once.  [default: 1]"),
        _option("--sheet", is_flag=True, help="Also all pictures on one labelled sheet."),
        _option("--steps-sheet", is_flag=True, help="Also what each step thought, as a strip."),
        _option(
            "--no-settings",
            is_flag=True,
            help="Leave out what rerun reads; names without folders stay.",
        ),
    ],
}
