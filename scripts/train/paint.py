"""A little paint box: outlines in, softly shaded pictures out.

Everything is painted at the picture's own size on one float array; only the coverage of an outline
is supersampled. That is quick, and edges are as smooth as those of a large picture made small.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.floating]
Colour = tuple[float, float, float]

SUPERSAMPLING = 3
RIM = 1.6 / 128
"""Width of the darker rim as a share of the picture, so that it is never a hairline."""


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with a share of `b` in it."""
    red, green, blue = (x + (y - x) * share for x, y in zip(a, b, strict=True))
    return red, green, blue


def lighter(colour: Colour, share: float = 0.35) -> Colour:
    return mix(colour, (255, 255, 250), share)


def darker(colour: Colour, share: float = 0.32) -> Colour:
    """Shade leans to violet, as in a watercolour; plain darkening looks dirty."""
    return mix(colour, (50, 35, 85), share)


# Outlines: arrays of points (x, y), y downwards.


def outline(*points: tuple[float, float]) -> Array:
    return np.array(points, dtype=np.float32)


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0, count: int = 40) -> Array:
    """An ellipse turned by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    dx, dy = rx * np.cos(angle), ry * np.sin(angle)
    points = [x + dx * np.cos(turn) - dy * np.sin(turn), y + dx * np.sin(turn) + dy * np.cos(turn)]
    return np.stack(points, axis=1).astype(np.float32)


def rounded(points: Array, cut: float = 0.25, times: int = 3) -> Array:
    """Chaikin's corner cutting; a small `cut` keeps the sides straight, a quarter gives a curve."""
    for _ in range(times):
        ahead = np.roll(points, -1, axis=0)
        pairs = np.stack([points + cut * (ahead - points), ahead + cut * (points - ahead)], axis=1)
        points, cut = pairs.reshape(-1, 2), 0.25
    return points


def ribbon(points: Array, width: float) -> Array:
    """A band of one width along a line."""
    along = np.gradient(points, axis=0)
    across = along[:, ::-1] / np.linalg.norm(along, axis=1, keepdims=True) * (-1, 1) * width / 2
    return np.concatenate([points + across, (points - across)[::-1]]).astype(np.float32)


@dataclass(frozen=True)
class Canvas:
    """A square picture in the making. Positions and lengths are shares of its side."""

    size: int
    pixels: Array = field(init=False)
    x: Array = field(init=False)
    y: Array = field(init=False)

    def __post_init__(self) -> None:
        centres = (np.arange(self.size, dtype=np.float32) + 0.5) / self.size
        object.__setattr__(self, "pixels", np.zeros((self.size, self.size, 3), np.float32))
        object.__setattr__(self, "x", centres[None, :])
        object.__setattr__(self, "y", centres[:, None])

    def image(self) -> Image.Image:
        return Image.fromarray((self.pixels.clip(0, 255) + 0.5).astype(np.uint8))

    def gradient(self, stops: Sequence[tuple[float, Colour]]) -> None:
        """Fill with colours running from top to bottom through `stops`."""
        self.pixels[:] = self.ramp(stops)

    def ramp(self, stops: Sequence[tuple[float, Colour]]) -> Array:
        at = [position for position, _ in stops]
        bands = [np.interp(self.y, at, [c[i] for _, c in stops]) for i in range(3)]
        return np.stack(bands, axis=2).astype(np.float32)

    def blend(self, coverage: Array, colour: Colour | Array) -> None:
        """Lay a colour over everything, as opaque as `coverage` says."""
        self.pixels[:] += coverage[..., None] * (np.asarray(colour, np.float32) - self.pixels)

    def disc(self, x: float, y: float, radius: float, colour: Colour, soft: float = 0.008) -> None:
        distance = np.hypot(self.x - x, self.y - y)
        self.blend(((radius - distance) / soft + 0.5).clip(0, 1), colour)

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        square = ((self.x - x) ** 2 + (self.y - y) ** 2) / radius**2
        self.blend(strength * np.exp(-square), colour)

    def land(self, height: Array, top: Colour, bottom: Colour, crest: float = 0.25) -> None:
        """Ground below the line `height` (one value a column), a little lit along the line."""
        depth = self.y - height
        colour = self.ramp([(float(height.min()), top), (1.0, bottom)])
        lit = crest * np.exp(-((depth / 0.05) ** 2))[..., None]
        self.blend((depth * self.size + 0.5).clip(0, 1), colour + lit * (255 - colour))

    def pool(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, strength: float
    ) -> None:
        """A soft-edged ellipse lying on the ground: a shadow, or foam around a hull."""
        square = ((self.x - x) / rx) ** 2 + ((self.y - y) / ry) ** 2
        self.blend(strength * np.exp(-square * square), colour)

    def paint(
        self,
        outlines: Sequence[Array],
        colour: Colour,
        *,
        volume: float = 1.0,
        rim: float = 0.6,
        opacity: float = 1.0,
    ) -> None:
        """Fill the union of outlines: lit from the upper left, with a soft darker rim.

        The blurred coverage serves as a relief: its slope gives light and shade (`volume`), and its
        fall at the edge the rim.
        """
        scaled = [points * self.size for points in outlines]
        low = np.min([points.min(axis=0) for points in scaled], axis=0)
        high = np.max([points.max(axis=0) for points in scaled], axis=0)
        blur = max(1.0, 0.1 * float(np.min(high - low)))
        margin = int(np.ceil(2 * blur)) + 1
        left, top = (np.floor(low).astype(int) - margin).tolist()
        width, height = (np.ceil(high).astype(int) + margin - (left, top)).tolist()
        mask = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
        pen = ImageDraw.Draw(mask)
        for points in scaled:
            # PIL fills whole pixels up to the edge, so half a pixel has to be given back.
            corners = (points - (left, top)) * SUPERSAMPLING - 0.5
            pen.polygon(corners.ravel().tolist(), fill=255)
        mask = mask.reduce(SUPERSAMPLING)
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + width, self.size), min(top + height, self.size)
        if x0 >= x1 or y0 >= y1:
            return
        window = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        coverage = _levels(mask)
        shades = np.asarray(colour, np.float32)
        if volume:
            relief = _levels(mask.filter(ImageFilter.GaussianBlur(blur)))
            step = max(1, round(0.7 * blur))
            slope = np.roll(relief, (-step, -step), (0, 1)) - np.roll(relief, (step, step), (0, 1))
            slope = (volume * slope[window])[..., None]
            light = np.subtract(lighter(colour, 0.8), shades, dtype=np.float32)
            shade = np.subtract(darker(colour, 0.5), shades, dtype=np.float32)
            shades = shades + slope.clip(0, 1) * light + (-slope).clip(0, 1) * shade
        if rim:
            edge = _levels(mask.filter(ImageFilter.BoxBlur(RIM * self.size)))[window]
            weight = (rim * (2 * (1 - edge)).clip(0, 1))[..., None]
            shades = shades + weight * (np.asarray(darker(colour, 0.5), np.float32) - shades)
        area = self.pixels[y0:y1, x0:x1]
        area += opacity * coverage[window][..., None] * (shades - area)


def _levels(mask: Image.Image) -> Array:
    return np.asarray(mask, dtype=np.float32) / 255
