"""How well pictures follow their prompts, marked by an examiner that never saw the model.

    python -m scripts.adherence --model picturebook --json adherence.json

The prompts name combinations of object and colour that the model was never trained on. Half of them
ask for one thing at a place, half for two things in a relation; prompt i is drawn with seed i. One
row asks for one thing without a place: there a thing must not come twice. The
examiner (scripts/train/examiner.py) is trained at first use, which takes some minutes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from tqdm import tqdm

import sdcore
from scripts.train.examiner import Examiner, Found, Reading, load_examiner, read, specimen
from scripts.train.world import Description, canonical_caption, sample_description
from sdcore.images import to_pictures, to_tensor
from sdcore.sampling import State
from sdcore.strengths import parse_lora
from sdcore.writing import write_whole

SEED = 3_000  # of the prompts; training pictures and the examiner's have their own
RENDERED = 400  # pictures that show how good the examiner is
WORK = Path("runs/examiner")
ABILITIES = ("scene", "object", "colour", "size", "place", "order", "number")
Marks = dict[str, list[bool]]  # of one picture: ability -> right or wrong, as often as it is asked
Shares = dict[str, float | None]  # ability -> share of right answers; None: never asked


# Marking


def mark(asked: Description, reading: Reading, placed: bool = True) -> Marks:
    """What is right in a picture. placed: whether the prompt said where one thing is.

    Object, colour and size count once for each thing asked for; one that is not there is wrong in
    all of them. Place is asked with one thing, order with two. Number: as many things as asked.
    """
    found = matched(asked, reading.found)
    marks: Marks = {"scene": [reading.scene == asked.scene]}
    for what in ("object", "colour", "size"):
        marks[what] = [
            f is not None and getattr(f.thing, what) == getattr(thing, what)
            for thing, f in zip(asked.things, found, strict=True)
        ]
    if asked.relation:
        marks["order"] = [in_order(asked, reading.found)]
    elif placed:
        marks["place"] = [found[0] is not None and place(found[0]) == asked.place]
    marks["number"] = [len(reading.found) == len(asked.things)]
    return marks


def place(found: Found) -> str:
    """Left, middle or right: the renderer puts them at 0.26-0.32, 0.5 and 0.68-0.74 (+-0.03)."""
    return "left" if found.x < 0.4 else "right" if found.x > 0.6 else "middle"


def matched(asked: Description, found: Sequence[Found]) -> tuple[Found | None, ...]:
    """For each thing asked for, which of the clearest things found is meant to be it.

    Two things are paired as they are most alike; where they stand does not matter here.
    """
    clearest = (*found[: len(asked.things)], None, None)[: len(asked.things)]
    return max(clearest, clearest[::-1], key=lambda pair: _likeness(asked, pair))


def in_order(asked: Description, found: Sequence[Found]) -> bool:
    """Whether the first thing asked for is seen left of, or above, the second.

    Right only if the two things found are more like the things asked for in this order than in the
    other: two red houses show no order.
    """
    if len(found) < 2:
        return False
    axis = (lambda f: f.x) if asked.relation == "left of" else (lambda f: f.y)
    pair = sorted(found[:2], key=axis)
    dx, dy = abs(pair[1].x - pair[0].x), abs(pair[1].y - pair[0].y)
    apart = dx > dy if asked.relation == "left of" else dy > dx
    return apart and _likeness(asked, pair)[0] > _likeness(asked, pair[::-1])[0]


def _likeness(asked: Description, pair: Sequence[Found | None]) -> tuple[int, int]:
    """How many objects and colours agree; then how many sizes."""
    seen = [(t, f.thing) for t, f in zip(asked.things, pair, strict=True) if f is not None]
    names = sum((t.object == s.object) + (t.colour == s.colour) for t, s in seen)
    return names, sum(t.size == s.size for t, s in seen)


def shares(marks: Sequence[Marks]) -> Shares:
    """The share of right answers by ability, and of pictures that are all right."""
    result: Shares = {}
    for ability in ABILITIES:
        each = [right for m in marks for right in m.get(ability, [])]
        result[ability] = sum(each) / len(each) if each else None
    whole = [all(all(rights) for rights in m.values()) for m in marks]
    return result | {"all right": sum(whole) / len(whole)}


# The table


@dataclass(frozen=True)
class Row:
    """One line of the table; steps and cfg are None where the model did not draw."""

    pictures: str
    steps: int | None
    cfg: float | None
    count: int
    shares: Shares

    def line(self) -> str:
        knobs = ["" if v is None else f"{v:g}" for v in (self.steps, self.cfg)]
        values = ["-" if v is None else f"{100 * v:.1f}" for v in self.shares.values()]
        return _line(self.pictures, *knobs, str(self.count), *values)


def header() -> str:
    names = ("pictures", "steps", "CFG", "n", *ABILITIES, "all right")
    rule = ["---", *["---:"] * (len(names) - 1)]
    return f"{_line(*names)}\n{_line(*rule)}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


# The pictures


def descriptions(count: int, held_out: bool) -> list[Description]:
    """One thing, two things, one thing, ...; the first is a held-out pair, or never one."""
    rng = np.random.default_rng([SEED, held_out])
    chosen: list[Description] = []
    while len(chosen) < count:
        each = sample_description(rng, held_out)
        if len(each.things) == 1 + len(chosen) % 2:
            chosen.append(each)
    return chosen


def rendered(asked: Sequence[Description]) -> list[Image.Image]:
    """The renderer's own pictures."""
    return [
        Image.fromarray(specimen(each, [SEED, index]).pixels) for index, each in enumerate(asked)
    ]


def drawn(
    sd: sdcore.StableDiffusion,
    asked: Sequence[Description],
    batch: int = 8,
    placed: bool = True,
    **settings: Any,
) -> Iterator[Image.Image]:
    """The model's pictures, the i-th with seed i; `settings` as `sd.prepare` takes them."""
    run = sd.prepare([canonical_caption(each, placed) for each in asked], **settings)
    seeds = tuple(range(len(asked)))
    own = tuple(replace(s, seed=seed) for s, seed in zip(run.settings, seeds, strict=True))
    noise = replace(run.noise, seeds=seeds)
    start = State(noise.start() * run.plan.start_scale)
    run = replace(run, settings=own, noise=noise, start=start)
    for part in run.split(batch):
        with torch.inference_mode():
            *_, last = part
            pictures = part.decode(last.x_next)
        yield from pictures


@torch.inference_mode()
def reconstructed(
    sd: sdcore.StableDiffusion, pictures: Sequence[Image.Image]
) -> tuple[list[Image.Image], float]:
    """The pictures after the VAE's mean latents, and their mean PSNR in dB."""
    after: list[Image.Image] = []
    decibels: list[float] = []
    for picture in pictures:
        x = to_tensor(picture).to(sd.device, sd.dtype)
        y = sd.vae.decode(sd.vae.encode(x).mean.to(sd.dtype)).clamp(-1, 1)
        decibels.append(-10 * math.log10(F.mse_loss(y.float() / 2, x.float() / 2).item()))
        after += to_pictures(y)
    return after, sum(decibels) / len(decibels)


def examine(
    examiner: Examiner,
    asked: Sequence[Description],
    pictures: Sequence[Image.Image],
    placed: bool = True,
) -> Shares:
    readings = read(examiner, pictures)
    return shares([mark(d, r, placed) for d, r in zip(asked, readings, strict=True)])


def blurred(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """A Gaussian of one pixel."""
    return [picture.filter(ImageFilter.GaussianBlur(1)) for picture in pictures]


def rows(
    sd: sdcore.StableDiffusion,
    examiner: Examiner,
    held_out: Sequence[Description],
    alone: Sequence[Description],
    seen: Sequence[Description],
    default: tuple[int, float],
    cfg: Sequence[float],
    steps: Sequence[int],
    batch: int,
    **settings: Any,
) -> Iterator[Row]:
    """The model's rows: `held_out` at all steps and scales, the others at the default ones.

    `alone`: one thing each, whose place is not said.
    """
    grid = [(default[0], scale) for scale in cfg] + [(count, default[1]) for count in steps]
    plan = [("seen pairs", seen, default), ("no place said", alone, default)]
    plan += [("held-out pairs", held_out, knobs) for knobs in dict.fromkeys([default, *grid])]
    for name, asked, (count, scale) in plan:
        placed = name != "no place said"
        strokes = drawn(sd, asked, batch, placed, **settings, steps=count, cfg=scale)
        title = f"{name}, {count} steps, cfg {scale:g}"
        bar = tqdm(strokes, title, len(asked), disable=None, leave=False)
        yield Row(name, count, scale, len(asked), examine(examiner, asked, list(bar), placed))


# The command


def _numbers(kind: Callable[[str], Any]) -> Callable[..., list[Any]]:
    def parse(context: click.Context, option: click.Parameter, text: str) -> list[Any]:
        try:
            return [kind(part) for part in text.split(",") if part.strip()]
        except ValueError:
            raise click.BadParameter(f"write numbers like {option.default}, not {text!r}") from None

    return parse


@click.command()
@click.option("--model", default="picturebook", show_default=True, help="Bundled name or folder.")
@click.option("--lora", multiple=True, help="FILE or FILE:0.8; may be repeated.")
@click.option("--prediction", "prediction_type", help="What the UNet says; default: the model's.")
@click.option("--default-cfg", type=float, help="While steps vary; default: the model's.")
@click.option("--default-steps", type=int, help="While CFG varies; default: the model's.")
@click.option("--cfg", default="1,3,5,7.5,12", show_default=True, callback=_numbers(float))
@click.option("--steps", default="5,10,20,50", show_default=True, callback=_numbers(int))
@click.option(
    "--pictures", type=click.IntRange(1), default=200, show_default=True, help="For each row."
)
@click.option("--scheduler", help="Default: the model's own.")
@click.option("--spacing", help="Default: the scheduler's own.")
@click.option("--device", help="cpu, cuda ...; chosen by itself when not given.")
@click.option(
    "--batch", type=click.IntRange(1), default=8, show_default=True, help="Drawn together."
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=WORK,
    show_default=True,
    help="Folder that keeps the examiner.",
)
@click.option(
    "--json", "report", type=click.Path(path_type=Path, dir_okay=False), help="Write it here too."
)
def main(report: Path | None, **options: Any) -> None:
    """Print how many pictures follow their prompts, in percent, as a table in markdown.

    The CFG scales run at the default number of steps, the numbers of steps at the default scale.
    """
    try:
        facts = _measure(**options)
        if report is not None:
            write_whole(report, (json.dumps(facts, indent=2) + "\n").encode())
    except sdcore.InputError as error:
        raise click.ClickException(str(error)) from None


def _measure(
    model: str,
    lora: tuple[str, ...],
    prediction_type: str | None,
    default_cfg: float | None,
    default_steps: int | None,
    cfg: list[float],
    steps: list[int],
    pictures: int,
    scheduler: str | None,
    spacing: str | None,
    device: str | None,
    batch: int,
    work: Path,
) -> dict[str, Any]:
    """Print everything; return it as plain data."""
    sd = sdcore.load(model, device)
    for path, unet, text in map(parse_lora, lora):
        sd = sd.with_lora(path, unet=unet, text=text)
    settings: dict[str, Any] = {"scheduler": scheduler, "spacing": spacing}
    settings["prediction_type"] = prediction_type
    usual = sd.prepare("", **settings, steps=default_steps, cfg=default_cfg).settings[0]
    default = usual.steps, usual.cfg
    examiner = load_examiner(work)
    done: list[Row] = []

    def show(row: Row) -> None:
        click.echo(row.line())
        done.append(row)

    click.echo(header())
    asked = descriptions(RENDERED, held_out=True)
    originals = rendered(asked)
    after, psnr = reconstructed(sd, originals)
    for name, shown in (
        ("renderer", originals),
        ("renderer, blurred by 1 px", blurred(originals)),
        ("renderer, through the VAE", after),
    ):
        show(Row(name, None, None, len(shown), examine(examiner, asked, shown)))
    new, old = descriptions(pictures, held_out=True), descriptions(pictures, held_out=False)
    alone = [each for each in descriptions(2 * pictures, held_out=True) if each.place is not None]
    for row in rows(sd, examiner, new, alone, old, default, cfg, steps, batch, **settings):
        show(row)
    click.echo(
        f"\n{usual.model}: {usual.scheduler}, {usual.spacing} spacing; {usual.steps} steps and "
        f"CFG {usual.cfg:g} by default. Percent right: of the pictures (scene, number, all right), "
        "of the things asked for (object, colour, size), of the pictures with one thing (place) "
        f"or two (order). The standard error at 90 % of {pictures} is "
        f"{100 * math.sqrt(0.09 / pictures):.1f}, of half as many "
        f"{100 * math.sqrt(0.18 / pictures):.1f}."
    )
    click.echo(f"\nPSNR of the VAE over {len(after)} rendered pictures: {psnr:.2f} dB")
    return {"settings": asdict(usual), "psnr": psnr, "rows": [asdict(row) for row in done]}


if __name__ == "__main__":
    main()
