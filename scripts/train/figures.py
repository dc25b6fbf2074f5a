"""The twelve things of the picture-book world.

Each is drawn in a box whose longer side is 1: x from -width/2 to width/2, y from 0 (top) to height
(foot). The outlines touch the box, so the box is what a measuring eye would find.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scripts.train.paint import (
    Array,
    Canvas,
    Colour,
    darker,
    ellipse,
    lighter,
    mix,
    outline,
    ribbon,
    rounded,
)

# Second colours: dull enough that nobody takes them for the colour of the thing.
SLATE: Colour = (98, 88, 88)
WOOD: Colour = (128, 92, 70)
CREAM: Colour = (232, 220, 198)
GLASS: Colour = (206, 222, 226)
SAGE: Colour = (96, 124, 84)
INK: Colour = (52, 42, 58)


@dataclass(frozen=True)
class Brush:
    """Paints in a figure's coordinates: `scale` is its longer side as a share of the picture."""

    canvas: Canvas
    x: float
    top: float
    scale: float
    colour: Colour

    @property
    def tint(self) -> Colour:
        """A paler sister of the colour; white, which has none, gets a pearl grey."""
        return (206, 210, 222) if min(self.colour) > 225 else lighter(self.colour, 0.42)

    def fill(
        self,
        *outlines: Array,
        colour: Colour | None = None,
        volume: float = 1.0,
        rim: float = 0.6,
        opacity: float = 1.0,
    ) -> None:
        placed = [points * self.scale + (self.x, self.top) for points in outlines]
        colour = colour or self.colour
        self.canvas.paint(placed, colour, volume=volume, rim=rim, opacity=opacity)

    def detail(self, *outlines: Array, colour: Colour, thickness: float) -> None:
        """A flat small part, left out where it would be thinner than a soft line of two pixels."""
        if thickness * self.scale >= 1.7 / 128:
            self.fill(*outlines, colour=colour, volume=0, rim=0)

    def shine(self, x: float, y: float, rx: float, ry: float, turn: float = -0.6) -> None:
        self.fill(
            ellipse(x, y, rx, ry, turn), colour=(255, 255, 255), volume=0, rim=0, opacity=0.55
        )


def _house(brush: Brush) -> None:
    brush.fill(outline((0.17, 0.06), (0.31, 0.06), (0.31, 0.4), (0.17, 0.4)), colour=WOOD)
    walls = outline((-0.37, 0.36), (0, 0.12), (0.37, 0.36), (0.37, 1), (-0.37, 1))
    brush.fill(rounded(walls, 0.04))
    roof = outline((-0.5, 0.45), (0, 0), (0.5, 0.45), (0.36, 0.5), (0, 0.2), (-0.36, 0.5))
    brush.fill(rounded(roof, 0.08), colour=SLATE)
    door = outline((-0.25, 1), (-0.25, 0.62), (-0.05, 0.62), (-0.05, 1))
    brush.fill(rounded(door, 0.12), colour=WOOD)
    brush.fill(ellipse(0.17, 0.68, 0.115, 0.115), colour=CREAM, volume=0.4, rim=0.9)


def _tree(brush: Brush) -> None:
    trunk = outline((-0.06, 0.5), (0.06, 0.5), (0.07, 0.85), (0.16, 1), (-0.16, 1), (-0.07, 0.85))
    brush.fill(rounded(trunk, 0.1), colour=WOOD)
    brush.fill(
        ellipse(-0.22, 0.46, 0.2, 0.19),
        ellipse(0.22, 0.46, 0.2, 0.19),
        ellipse(0, 0.52, 0.24, 0.2),
        ellipse(0, 0.27, 0.28, 0.27),
        volume=1.2,
    )
    brush.shine(-0.11, 0.17, 0.09, 0.05)


def _boat(brush: Brush) -> None:
    brush.fill(outline((-0.03, 0), (0.03, 0), (0.03, 0.76), (-0.03, 0.76)), colour=WOOD)
    main = outline((0.05, 0.05), (0.3, 0.3), (0.43, 0.64), (0.05, 0.64))
    brush.fill(rounded(main, 0.08))
    jib = outline((-0.06, 0.14), (-0.06, 0.64), (-0.33, 0.64))
    brush.fill(rounded(jib, 0.08), colour=CREAM)
    hull = outline((-0.48, 0.7), (0.48, 0.7), (0.35, 0.94), (0.22, 1), (-0.22, 1), (-0.35, 0.94))
    brush.fill(rounded(hull, 0.08))


def _balloon(brush: Brush) -> None:
    for side in (-1, 1):
        rope = outline((side * 0.17, 0.66), (side * 0.09, 0.88))
        brush.fill(ribbon(rope, 0.045), colour=WOOD, rim=0)
    basket = outline((-0.13, 0.83), (0.13, 0.83), (0.1, 1), (-0.1, 1))
    angle = np.linspace(0.86 * np.pi, 2.14 * np.pi, 30)
    dome = np.stack([0.38 * np.cos(angle), 0.375 + 0.375 * np.sin(angle)], axis=1)
    foot = outline((0.17, 0.72), (-0.17, 0.72))
    brush.fill(np.concatenate([dome, foot]), volume=1.2)
    seam = ellipse(0, 0.375, 0.14, 0.36)
    brush.fill(seam[seam[:, 1] < 0.73], colour=brush.tint, volume=0.4, rim=0)
    brush.fill(rounded(basket, 0.1), colour=WOOD)


def _ball(brush: Brush) -> None:
    brush.fill(ellipse(0, 0.5, 0.5, 0.5), volume=1.3)
    brush.fill(_belt(-0.26, 0.26), colour=brush.tint, volume=0.3, rim=0.15)
    brush.shine(-0.26, 0.24, 0.09, 0.055)


def _belt(south: float, north: float, tilt: float = 0.5, lean: float = -0.45) -> Array:
    """The visible part of a band between two latitudes of the ball, seen a little from above."""
    sides: list[Array] = []
    for latitude in (south, north):
        turn = np.linspace(0, np.pi, 24)
        x = np.cos(latitude) * np.cos(turn)
        y = np.cos(latitude) * np.sin(turn) * np.sin(tilt) - np.sin(latitude) * np.cos(tilt)
        across, down = x * np.cos(lean) - y * np.sin(lean), x * np.sin(lean) + y * np.cos(lean)
        # A hair inside the ball, so that its dark rim stays whole.
        sides.append(np.stack([0.48 * across, 0.5 + 0.48 * down], axis=1))
    return np.concatenate([sides[0], sides[1][::-1]])


def _star(brush: Brush) -> None:
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2, 0.31, 0.56)
    tips = np.stack([radius * np.cos(angle), 0.53 + radius * np.sin(angle)], axis=1)
    brush.fill(rounded(tips, 0.12, 4))
    _face(brush, 0, 0.52, 0.1)


def _heart(brush: Brush) -> None:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = np.sin(t) ** 3 / 2
    y = (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 32
    brush.fill(np.stack([x, (y.max() - y)], axis=1), volume=1.2)
    brush.shine(-0.26, 0.2, 0.1, 0.06)


def _mushroom(brush: Brush) -> None:
    stem = outline((-0.13, 0.45), (0.13, 0.45), (0.15, 0.75), (0.22, 0.95), (-0.22, 0.95))
    stem = np.concatenate([stem, outline((-0.15, 0.75))])
    brush.fill(rounded(stem, 0.12), colour=CREAM)
    angle = np.linspace(np.pi, 2 * np.pi, 24)
    dome = np.stack([0.5 * np.cos(angle), 0.48 + 0.48 * np.sin(angle)], axis=1)
    brow = outline((0.44, 0.56), (0, 0.6), (-0.44, 0.56))
    brush.fill(rounded(np.concatenate([dome, brow]), 0.25, 1), volume=1.2)
    for x, y, radius in ((-0.22, 0.3, 0.085), (0.06, 0.17, 0.08), (0.24, 0.38, 0.085)):
        brush.fill(ellipse(x, y, radius, radius * 0.9), colour=brush.tint, volume=0, rim=0)
    _face(brush, 0, 0.74, 0.07)


def _flower(brush: Brush) -> None:
    stem = outline((0, 0.5), (0.02, 0.75), (0, 1))
    brush.fill(ribbon(stem, 0.06), colour=SAGE, rim=0.3)
    leaves = ellipse(-0.14, 0.84, 0.15, 0.06, 0.5), ellipse(0.15, 0.8, 0.15, 0.06, -0.5)
    brush.fill(*leaves, colour=SAGE)
    for turn in np.arange(6) * np.pi / 3:
        x, y = 0.21 * np.sin(turn), 0.35 - 0.21 * np.cos(turn)
        brush.fill(ellipse(x, y, 0.14, 0.13, turn), volume=0.7)
    brush.fill(ellipse(0, 0.35, 0.125, 0.125), colour=(122, 88, 70))


def _fish(brush: Brush) -> None:
    fins = rounded(outline((-0.18, 0.2), (0.02, -0.06), (0.16, 0.2)), 0.2)
    tail = outline((0.2, 0.37), (0.5, 0.08), (0.53, 0.16), (0.42, 0.37), (0.53, 0.58), (0.5, 0.66))
    brush.fill(fins, rounded(tail, 0.15), colour=mix(brush.colour, darker(brush.colour), 0.4))
    brush.fill(ellipse(-0.11, 0.37, 0.39, 0.28), volume=1.2)
    brush.fill(ellipse(0.06, 0.43, 0.12, 0.06, 0.4), colour=brush.tint, volume=0.3, rim=0.2)
    brush.fill(ellipse(-0.29, 0.3, 0.075, 0.075), colour=(250, 250, 250), volume=0, rim=0.3)
    brush.fill(ellipse(-0.305, 0.305, 0.045, 0.045), colour=INK, volume=0, rim=0)


def _car(brush: Brush) -> None:
    cabin = outline((-0.33, 0.3), (-0.23, 0), (0.16, 0), (0.34, 0.3))
    body = outline((-0.5, 0.26), (-0.3, 0.22), (0.3, 0.22), (0.5, 0.3), (0.5, 0.53), (-0.5, 0.53))
    brush.fill(rounded(cabin, 0.15), rounded(body, 0.1))
    rear = outline((-0.23, 0.25), (-0.17, 0.07), (-0.03, 0.07), (-0.03, 0.25))
    front = outline((0.04, 0.25), (0.04, 0.07), (0.14, 0.07), (0.24, 0.25))
    brush.fill(rounded(rear, 0.1), rounded(front, 0.1), colour=GLASS, volume=0.3, rim=0.2)
    for x in (-0.27, 0.27):
        brush.fill(ellipse(x, 0.53, 0.125, 0.125), colour=INK)
        brush.fill(ellipse(x, 0.53, 0.055, 0.055), colour=CREAM, volume=0, rim=0.2)
    brush.fill(ellipse(0.45, 0.36, 0.04, 0.05), colour=CREAM, volume=0, rim=0.2)


def _cat(brush: Brush) -> None:
    # The tail reaches out to the right; the box is centred on cat and tail.
    brush = replace(brush, x=brush.x - 0.055 * brush.scale)
    tail = outline((0.16, 0.9), (0.3, 0.88), (0.37, 0.76), (0.34, 0.62), (0.37, 0.54))
    brush.fill(ribbon(tail, 0.1), ellipse(0.37, 0.55, 0.055, 0.06))
    brush.fill(ellipse(0, 0.74, 0.26, 0.26), ellipse(0, 0.6, 0.18, 0.2))
    brush.fill(ellipse(0, 0.77, 0.12, 0.15), colour=brush.tint, volume=0.3, rim=0)
    brush.fill(ellipse(-0.12, 0.95, 0.11, 0.055), ellipse(0.12, 0.95, 0.11, 0.055), volume=0.5)
    left = outline((-0.3, 0.3), (-0.28, -0.03), (-0.04, 0.14))
    right = left * (-1, 1)
    brush.fill(rounded(left, 0.1), rounded(right, 0.1), ellipse(0, 0.32, 0.31, 0.23))
    brush.fill(ellipse(0, 0.4, 0.13, 0.085), colour=brush.tint, volume=0.2, rim=0)
    for x in (-0.13, 0.13):
        brush.fill(ellipse(x, 0.29, 0.042, 0.055), colour=INK, volume=0, rim=0)
    brush.detail(ellipse(0, 0.37, 0.04, 0.03), colour=(150, 90, 96), thickness=0.06)


def _face(brush: Brush, x: float, y: float, width: float) -> None:
    """Two eyes, and a smile where it is large enough to be seen."""
    eyes = [ellipse(x + side * width, y, 0.036, 0.05) for side in (-1, 1)]
    brush.detail(*eyes, colour=INK, thickness=0.08)
    angle = np.linspace(0.15 * np.pi, 0.85 * np.pi, 12)
    arc = np.stack([x + 0.7 * width * np.cos(angle), y + 0.05 + 0.06 * np.sin(angle)], axis=1)
    brush.detail(ribbon(arc, 0.036), colour=INK, thickness=0.036)


@dataclass(frozen=True)
class Figure:
    """How a thing is drawn, the box it fills, and whether it hangs in the air."""

    paint: Callable[[Brush], None]
    width: float
    height: float
    floats: bool = False

    def draw(self, canvas: Canvas, x: float, top: float, scale: float, colour: Colour) -> None:
        """Draw with the box's centre at `x`, its upper edge at `top`, its longer side `scale`."""
        self.paint(Brush(canvas, x, top, scale, colour))


FIGURES: dict[str, Figure] = {
    "house": Figure(_house, 0.96, 1.0),
    "tree": Figure(_tree, 0.84, 1.0),
    "boat": Figure(_boat, 0.94, 1.0),
    "balloon": Figure(_balloon, 0.76, 1.0, floats=True),
    "ball": Figure(_ball, 1.0, 1.0),
    "star": Figure(_star, 1.0, 0.95, floats=True),
    "heart": Figure(_heart, 1.0, 0.9, floats=True),
    "mushroom": Figure(_mushroom, 1.0, 0.95),
    "flower": Figure(_flower, 0.7, 1.0),
    "fish": Figure(_fish, 1.0, 0.66, floats=True),
    "car": Figure(_car, 1.0, 0.65),
    "cat": Figure(_cat, 0.74, 1.0),
}


def cloud(x: float, y: float, width: float) -> Sequence[Array]:
    """The outlines of a cloud `width` wide, centred on (x, y)."""
    puffs = ((-0.3, 0.03, 0.19), (-0.06, -0.05, 0.23), (0.2, -0.01, 0.2), (0.36, 0.05, 0.14))
    base = ellipse(x, y + 0.08 * width, 0.5 * width, 0.1 * width)
    return base, *(ellipse(x + a * width, y + b * width, r * width, r * width) for a, b, r in puffs)
