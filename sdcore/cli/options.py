"""The options that `sample` and `rerun` share, and how seeds and prompts are read."""

import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from sdcore.errors import InputError
from sdcore.paths import path_of

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


_SIZE, _CORNER = _Pair("x", "1024x768"), _Pair(",", "0,0")


def _fallback(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value not in (None, "size"):
        why = ": fewer steps need no less memory" if "steps" in value else ""
        raise InputError(f"--fallback allows a smaller picture, size, and not {value!r}{why}")
    return value


def _option(*names: str, **settings: Any) -> click.Option:
    return click.Option(names, **settings)


_GROUPS: Mapping[str, Sequence[click.Option]] = {
    "Words": [
        _option("--negative", metavar="TEXT", help="What the picture should not be."),
        _option("--grammar", metavar="NAME", help="plain, or a1111: (words:1.2), [a:b:0.5]."),
        _option("--clip-skip", type=int, help="2: the text encoder's last layer but one."),
        _option(
            "--embedding",
            metavar="FILE",
            multiple=True,
            help="A learned word: FILE or FILE:WORD; may be repeated.",
        ),
    ],
    "Sampling": [
        _option(
            "--scheduler",
            metavar="NAME",
            help="E.g. ddim, 'DPM++ 2M Karras', dpmpp_2m:euler_at_final=1, mine.py.",
        ),
        _option("--steps", type=int, help="How many steps.  [default: 20, or the model's]"),
        _option(
            "--cfg", type=float, help="Guidance scale; 1 is off.  [default: 7.5, or the model's]"
        ),
        _option("--seed", metavar="SEEDS", help="E.g. 7 or 0-3,7; none: drawn, and printed."),
        _option("--count", type=int, help="How many pictures of each prompt."),
        _option("--width", type=int, help="Pixels, a multiple of 8.  [default: the model's]"),
        _option("--height", type=int, help="Pixels, a multiple of 8.  [default: the model's]"),
        _option(
            "--spacing",
            metavar="NAME",
            help="E.g. karras, a1111:beta, mine.py; see sdcore schedulers.",
        ),
        _option("--sigmas", metavar="LIST", help="The noise levels themselves, e.g. 14.6,5,1,0."),
        _option("--timesteps", metavar="LIST", help="Or the timesteps, e.g. 999,750,500,250."),
        _option("--tail", metavar="TAIL", help="zero, sigma_min, discard_penultimate, or a sigma."),
        _option("--eta", type=float, help="Share of fresh noise a step, 0 to 1."),
        _option(
            "--noise", metavar="NAME", help="independent, or brownian: one path for any steps."
        ),
    ],
    "Model": [
        _option("--model", metavar="MODEL", help="Bundled name, folder, file, or hub id."),
        _option(
            "--lora",
            metavar="FILE",
            multiple=True,
            help="FILE, FILE:0.8 or FILE:unet=1,text=0.5; may be repeated.",
        ),
        _option(
            "--prediction",
            "prediction_type",
            metavar="TYPE",
            help="What the UNet says: epsilon, v_prediction or sample.  [default: the model's]",
        ),
        _option("--vae", metavar="PLACE", help="This part from a file, a folder or a hub id."),
        _option("--unet", metavar="PLACE", help="The same."),
        _option("--text-encoder", metavar="PLACE", help="The same."),
        _option("--text-encoder-2", metavar="PLACE", help="The same, SDXL's second."),
        _option("--variant", metavar="NAME", help="Of a folder's weights: fp16, non_ema ..."),
        _option("--revision", metavar="REV", help="Of a hub id: a branch, a tag, a commit."),
        _option("--ema", is_flag=True, default=None, help="A single file's averaged weights."),
        _option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps.  [default: the best]"),
        _option("--dtype", metavar="NAME", help="float32, tf32, bfloat16, float16."),
        _option("--memory", metavar="MODE", help="fast, balanced, low.  [default: what fits]"),
        _option(
            "--fallback",
            metavar="size",
            callback=_fallback,
            help="When memory runs out even so: a smaller picture.  [default: an error]",
        ),
    ],
    "Inpainting and SDXL": [
        _option("--image", metavar="FILE", help="For inpainting models: what to repaint."),
        _option("--mask", metavar="FILE", help="White where it is repainted."),
        _option("--refiner", metavar="MODEL", help="SDXL's refiner, for the last noise levels."),
        _option("--handover", type=float, help="The sigma at which it takes over.  [t = 200]"),
        _option("--original-size", type=_SIZE, metavar="WxH", help="What SDXL is told of it."),
        _option("--crop", type=_CORNER, metavar="LEFT,TOP", help="The same.  [default: 0,0]"),
        _option("--target-size", type=_SIZE, metavar="WxH", help="The same."),
        _option("--aesthetic-score", type=float, help="What its refiner is told.  [default: 6]"),
        _option("--negative-aesthetic-score", type=float, help="The same.  [default: 2.5]"),
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


# What `prepare` takes under the same names, as they are. In `FAMILY` what only some models take.
PLAIN = (
    "grammar",
    "clip_skip",
    "scheduler",
    "spacing",
    "eta",
    "noise",
    "tail",
    "steps",
    "cfg",
    "width",
    "height",
    "prediction_type",
)
SOURCE = ("vae", "unet", "text_encoder", "text_encoder_2", "variant", "revision", "ema")
TOLD = ("original_size", "crop", "target_size", "aesthetic_score", "negative_aesthetic_score")
FAMILY = ("image", "mask", "handover", *TOLD)


LISTS = ("sigmas:", "timesteps:")  # how a spacing begins that is a list


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
