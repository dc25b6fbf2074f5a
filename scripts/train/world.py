"""The picture-book world that the bundled model is trained on: words, layout, pictures, captions.

A `Description` says in words what is in a picture. `layout` turns the words into boxes, `draw` into
a picture, `caption` into a sentence. All chance comes from the generator handed in.

    python -m scripts.train.world --out sheet.png
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import click
import numpy as np
from PIL import Image, ImageDraw

from scripts.train.figures import FIGURES, cloud
from scripts.train.paint import Canvas, Colour
from scripts.train.scenery import CLOUDS, paint_scene

Rng = np.random.Generator
Choice = TypeVar("Choice")

SCENE_PHRASES: dict[str, str] = {
    "meadow": "in a meadow",
    "sunset": "at sunset",
    "night": "at night",
    "sea": "by the sea",
    "desert": "in the desert",
    "snow": "in the snow",
    "mountains": "in the mountains",
    "moon": "on the moon",
}
SCENES: tuple[str, ...] = tuple(SCENE_PHRASES)
OBJECTS: tuple[str, ...] = tuple(FIGURES)
PAINTS: dict[str, Colour] = {
    "red": (222, 44, 48),
    "orange": (248, 136, 32),
    "yellow": (254, 218, 58),
    "green": (62, 164, 76),
    "blue": (52, 114, 230),
    "purple": (138, 72, 196),
    "pink": (252, 146, 196),
    "white": (250, 250, 252),
}
COLOURS: tuple[str, ...] = tuple(PAINTS)
SIDES: dict[str, float] = {"small": 30 / 128, "medium": 50 / 128, "big": 80 / 128}
"""A thing's longer side as a share of the picture's."""
SIZES: tuple[str, ...] = tuple(SIDES)
PLACES: tuple[str, ...] = ("left", "middle", "right")
RELATIONS: tuple[str, ...] = ("left of", "above")

HELD_OUT: tuple[tuple[str, str], ...] = (
    ("house", "purple"),
    ("tree", "pink"),
    ("boat", "green"),
    ("balloon", "yellow"),
    ("star", "blue"),
    ("heart", "orange"),
    ("mushroom", "white"),
    ("fish", "red"),
    ("car", "orange"),
    ("cat", "green"),
)
"""(object, colour) pairs that are never trained on: they show whether the model combines words."""

TWO_THINGS = 0.35


@dataclass(frozen=True)
class Thing:
    """One object with its colour and size."""

    object: str
    colour: str
    size: str


@dataclass(frozen=True)
class Description:
    """A picture in words: a scene with one thing at a place, or two things in a relation.

    With "left of" the first thing is on the left, with "above" it is the upper one.
    """

    scene: str
    things: tuple[Thing, ...]
    place: str | None = None
    relation: str | None = None

    def __post_init__(self) -> None:
        one = len(self.things) == 1 and self.place is not None and self.relation is None
        two = len(self.things) == 2 and self.place is None and self.relation is not None
        if not (one or two):
            raise ValueError("one thing needs a place, two things need a relation")


@dataclass(frozen=True)
class Box:
    """Where a thing is, in shares of the picture: its horizontal centre, upper edge and extent."""

    x: float
    top: float
    width: float
    height: float

    @property
    def bottom(self) -> float:
        return self.top + self.height


def sample_description(rng: Rng, held_out: bool = False) -> Description:
    """Draw a description; the first thing is a held-out pair if asked for, and never otherwise."""
    scene = _pick(rng, SCENES)
    if rng.random() >= TWO_THINGS:
        return Description(scene, (_thing(rng, SIZES, held_out),), place=_pick(rng, PLACES))
    first = second = _thing(rng, SIZES[:2], held_out)
    while (second.object, second.colour) == (first.object, first.colour):
        second = _thing(rng, SIZES[:2], held_out=False)
    return Description(scene, (first, second), relation=_pick(rng, RELATIONS))


def layout(description: Description, rng: Rng) -> tuple[Box, ...]:
    """The boxes of the things, moved a little by chance within what the words allow."""
    shapes: list[tuple[float, float]] = []
    for thing in description.things:
        side = SIDES[thing.size] * rng.uniform(0.95, 1.05)
        figure = FIGURES[thing.object]
        shapes.append((side * figure.width, side * figure.height))
    if description.relation == "left of":
        return _side_by_side(description, shapes, rng)
    if description.relation == "above":
        return _one_above_the_other(shapes, rng)
    return (_alone(description, shapes[0], rng),)


def _alone(description: Description, shape: tuple[float, float], rng: Rng) -> Box:
    (thing,), (width, height) = description.things, shape
    shift = 0.18 if thing.size == "big" else 0.24
    x = 0.5 + shift * (PLACES.index(description.place or "middle") - 1) + rng.uniform(-0.03, 0.03)
    x = float(np.clip(x, width / 2 + 0.01, 0.99 - width / 2))
    if FIGURES[thing.object].floats:
        low, high = {"small": (0.28, 0.5), "medium": (0.32, 0.5), "big": (0.42, 0.5)}[thing.size]
        return Box(x, rng.uniform(low, high) - height / 2, width, height)
    low, high = {"small": (0.76, 0.86), "medium": (0.8, 0.89), "big": (0.87, 0.93)}[thing.size]
    if (thing.object, description.scene) == ("boat", "sea"):
        low, high = low - 0.14, high - 0.18  # afloat
    return Box(x, rng.uniform(low, high) - height, width, height)


def _side_by_side(
    description: Description, shapes: Sequence[tuple[float, float]], rng: Rng
) -> tuple[Box, ...]:
    """On one line: feet on the ground, or middles at one height as soon as something floats."""
    floating = [FIGURES[thing.object].floats for thing in description.things]
    foot = rng.uniform(0.8, 0.88)
    middle = rng.uniform(0.36, 0.5)
    if not all(floating):
        # What floats beside something on the ground hovers at the height of its neighbour.
        middle = foot - 0.03 - max(height for _, height in shapes) / 2
    boxes: list[Box] = []
    for (width, height), centre, floats in zip(shapes, (0.27, 0.73), floating, strict=True):
        top = middle - height / 2 if floats else foot - height
        boxes.append(Box(centre + rng.uniform(-0.03, 0.03), top, width, height))
    return tuple(boxes)


def _one_above_the_other(shapes: Sequence[tuple[float, float]], rng: Rng) -> tuple[Box, ...]:
    (upper_width, upper), (lower_width, lower) = shapes
    gap = rng.uniform(0.08, 0.12)
    foot = max(rng.uniform(0.8, 0.88), upper + gap + lower + 0.02)
    foot, gap = min(foot, 0.94), min(gap, 0.92 - upper - lower)
    x = rng.uniform(0.34, 0.66)
    low = foot - lower
    return (
        Box(x + rng.uniform(-0.02, 0.02), low - gap - upper, upper_width, upper),
        Box(x, low, lower_width, lower),
    )


def draw(
    description: Description,
    rng: Rng,
    size: int = 128,
    paints: Mapping[str, Colour] = MappingProxyType(PAINTS),
) -> Image.Image:
    """The picture of a description: the same generator state gives the same picture."""
    canvas = Canvas(size)
    boxes = layout(description, rng)
    paint_scene(canvas, description.scene, rng)
    pairs = list(zip(description.things, boxes, strict=True))
    for index, (thing, box) in enumerate(pairs):
        figure = FIGURES[thing.object]
        afloat = (thing.object, description.scene, len(pairs)) == ("boat", "sea", 1)
        if index == 0 and description.relation == "above":
            if not figure.floats:
                # What cannot fly is carried by a little cloud.
                puff = cloud(box.x, box.bottom + 0.01, max(1.15 * box.width, 0.26))
                colour = CLOUDS.get(description.scene, (236, 240, 248))
                canvas.paint(puff, colour, volume=0.5, rim=0.25)
        elif afloat:
            foam = box.x, box.bottom - 0.005, 0.62 * box.width, 0.035
            canvas.pool(*foam, colour=(232, 248, 248), strength=0.75)
        elif not figure.floats:
            shadow = box.x + 0.02, box.bottom - 0.005, 0.56 * box.width, 0.07 * box.width
            canvas.pool(*shadow, colour=(35, 30, 70), strength=0.42)
        jitter = rng.uniform(0.97, 1.03, 3) if thing.colour != "white" else np.ones(3)
        red, green, blue = np.minimum(jitter * paints[thing.colour], 255).tolist()
        side = max(box.width / figure.width, box.height / figure.height)
        figure.draw(canvas, box.x, box.top, side, (red, green, blue))
    return canvas.image()


# Captions

_SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("",), "big": ("big", "large")}
_PLACE_PHRASES = {
    "left": ("on the left", "on the left", "on the left side"),
    "middle": ("in the middle", "in the middle", "in the centre"),
    "right": ("on the right", "on the right", "on the right side"),
}
_ALONE = (
    "a {thing} {place} {scene}",
    "a {thing} {place} {scene}",
    "a {thing} {place}, {scene}",
    "a {thing} {scene}, {place}",
    "a {thing} {scene} {place}",
    "{scene}, a {thing} {place}",
    "{place}, a {thing} {scene}",
    "{thing}, {place}, {scene}",
    "{thing}, {short place}, {short scene}",
    "a picture of a {thing} {place} {scene}",
)
_WITHOUT_PLACE = ("a {thing} {scene}", "a {thing}, {scene}", "{thing}, {short scene}")
_WITHOUT_SCENE = ("a {thing} {place}", "a {thing}, {place}", "{thing}, {short place}")
_RELATED = {
    "left of": (
        "a {first} left of a {second}",
        "a {first} left of a {second}",
        "a {first} to the left of a {second}",
        "a {second} right of a {first}",
        "a {second} to the right of a {first}",
        "a {first} and to its right a {second}",
        "a {second} and to its left a {first}",
        "a {first} on the left and a {second} on the right",
    ),
    "above": (
        "a {first} above a {second}",
        "a {first} above a {second}",
        "a {first} over a {second}",
        "a {second} below a {first}",
        "a {second} under a {first}",
        "a {second} and above it a {first}",
        "a {first} and below it a {second}",
    ),
}
_IN_A_SCENE = ("{both} {scene}", "{both} {scene}", "{both}, {scene}", "{scene}, {both}")


def caption(description: Description, rng: Rng, omit: float = 0.15) -> str:
    """One way to say it. A share `omit` of the captions leaves out something that can be seen."""
    omission = _pick(rng, ("place", "scene", "colour", "place and scene"))
    if rng.random() >= omit:
        omission = ""
    scene = SCENE_PHRASES[description.scene]
    colourless = int(rng.integers(len(description.things))) if omission == "colour" else -1
    names = [_name(thing, rng, i != colourless) for i, thing in enumerate(description.things)]
    if description.relation:
        both = _pick(rng, _RELATED[description.relation]).format(first=names[0], second=names[1])
        if "scene" in omission:
            return _articles(both)
        return _articles(_pick(rng, _IN_A_SCENE).format(both=both, scene=scene))
    templates = {
        "place": _WITHOUT_PLACE,
        "scene": _WITHOUT_SCENE,
        "place and scene": ("a {thing}",),
    }.get(omission, _ALONE)
    place = description.place or "middle"
    words = {"place": _pick(rng, _PLACE_PHRASES[place]), "scene": scene, "thing": names[0]}
    words |= {"short place": place, "short scene": description.scene}
    return _articles(_pick(rng, templates).format(**words))


def canonical_caption(description: Description, placed: bool = True) -> str:
    """The plain form used for evaluation: "a big red house on the left in the snow".

    placed: whether it says where one thing is.
    """
    names = [_name(thing, None) for thing in description.things]
    if description.relation:
        start = f"a {names[0]} {description.relation} a {names[1]}"
    else:
        place = f" {_PLACE_PHRASES[description.place or 'middle'][0]}" if placed else ""
        start = f"a {names[0]}{place}"
    return _articles(f"{start} {SCENE_PHRASES[description.scene]}")


def _name(thing: Thing, rng: Rng | None, coloured: bool = True) -> str:
    """Size, colour, object; medium goes unsaid."""
    sizes = _SIZE_WORDS[thing.size]
    size = _pick(rng, sizes) if rng else sizes[0]
    return " ".join(filter(None, (size, thing.colour if coloured else "", thing.object)))


def _articles(text: str) -> str:
    """Only one word of the world begins with a vowel."""
    return f" {text}".replace(" a orange", " an orange").strip()


def _thing(rng: Rng, sizes: Sequence[str], held_out: bool) -> Thing:
    if held_out:
        return Thing(*HELD_OUT[rng.integers(len(HELD_OUT))], _pick(rng, sizes))
    while (pair := (_pick(rng, OBJECTS), _pick(rng, COLOURS))) in HELD_OUT:
        pass
    return Thing(*pair, _pick(rng, sizes))


def _pick(rng: Rng, choices: Sequence[Choice]) -> Choice:
    return choices[int(rng.integers(len(choices)))]


# Contact sheet


def contact_sheet(rows: Sequence[Sequence[Description]], rng: Rng, size: int = 128) -> Image.Image:
    """Pictures in rows, each above its canonical caption."""
    pad, text = 6, 38
    wide, high = size + pad, size + text + pad
    sheet = Image.new("RGB", (max(map(len, rows)) * wide + pad, len(rows) * high + pad), "white")
    pen = ImageDraw.Draw(sheet)
    for j, row in enumerate(rows):
        for i, description in enumerate(row):
            corner = pad + i * wide, pad + j * high
            sheet.paste(draw(description, rng, size), corner)
            words, lines = canonical_caption(description).split(), [""]
            for word in words:
                if pen.textlength(f"{lines[-1]} {word}") > size:
                    lines.append("")
                lines[-1] = f"{lines[-1]} {word}".strip()
            label = "\n".join(lines)
            pen.multiline_text((corner[0], corner[1] + size + 1), label, fill="black", spacing=0)
    return sheet


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--held-out", is_flag=True, help="Only pairs that are kept from training.")
def main(out: Path, seed: int, held_out: bool) -> None:
    """Write a labelled sheet of random pictures."""
    rng = np.random.default_rng(seed)
    rows = [[sample_description(rng, held_out) for _ in range(8)] for _ in range(6)]
    contact_sheet(rows, rng).save(out)
    click.echo(f"{out}: 48 pictures")


if __name__ == "__main__":
    main()
