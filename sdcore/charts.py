"""Line charts drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, GREY, GRID = (250, 249, 246), (38, 38, 42), (122, 120, 116), (226, 224, 218)
COLOURS = (
    (31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14),
    (23, 140, 155), (140, 86, 75), (200, 90, 170), (110, 110, 110), (150, 150, 20),
)  # fmt: skip
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line through points, with a band from the lowest to the highest at each x, if given."""

    name: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = field(default=())  # (x, low, high)


def chart(
    lines: Sequence[Line],
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    size: tuple[int, int] = (900, 560),
    legend: int = 0,
) -> Image.Image:
    """The lines over each other, with axes and a legend beside them, of at least so many pixels.

    A logarithmic axis needs positive numbers; what is not finite, or not positive there, is left
    out. Lines beyond ten share a colour and differ in their marks.
    """
    factor = 2  # drawn twice as large, then made smaller: smooth edges
    page = _Page(factor, size, log_x, log_y, legend)
    lines = [page.fit_to_draw(line) for line in lines]
    lines = [line for line in lines if line.points]
    image = Image.new("RGB", (size[0] * factor, size[1] * factor), PAPER)
    draw = ImageDraw.Draw(image, "RGBA")
    page.text(draw, (size[0] // 2, 16), title[:110], INK, 14, "mm")
    if not lines:
        page.text(draw, (size[0] // 2, size[1] // 2), "nothing to draw", GREY, 12, "mm")
        return image.resize(size, Image.Resampling.LANCZOS)
    page.axes(draw, lines, x_label, y_label)
    for number, line in enumerate(lines):
        page.line(draw, line, number)
    page.legend(draw, lines)
    if page.vertical is not None:
        image.paste(page.vertical, (4 * factor, (image.height - page.vertical.height) // 2))
    return image.resize(size, Image.Resampling.LANCZOS)


class _Page:
    """Where numbers are on the picture, in pixels of the final size."""

    def __init__(
        self, factor: int, size: tuple[int, int], log_x: bool, log_y: bool, legend: int
    ) -> None:
        self.factor, self.size, self.log, self.least = factor, size, (log_x, log_y), legend
        self.left, self.top, self.bottom = 78, 34, size[1] - 48
        self.right = size[0] - 16
        self.low, self.high = (0.0, 0.0), (1.0, 1.0)
        self.vertical: Image.Image | None = None

    def _scaled(self, value: float, axis: int) -> float:
        return math.log10(value) if self.log[axis] else value

    def _drawable(self, value: float, axis: int) -> bool:
        return math.isfinite(value) and (value > 0 or not self.log[axis])

    def fit_to_draw(self, line: Line) -> Line:
        """The line without what has no place on the axes."""
        points = [p for p in line.points if all(self._drawable(p[i], i) for i in (0, 1))]
        band = [b for b in line.band if self._drawable(b[0], 0)
                and all(self._drawable(v, 1) for v in b[1:])]  # fmt: skip
        return Line(line.name, points, band)

    def text(
        self, draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str,
        colour: tuple[int, int, int], size: int, anchor: str,
    ) -> None:  # fmt: skip
        font = ImageFont.load_default(size * self.factor)
        draw.text((at[0] * self.factor, at[1] * self.factor), text, colour, font, anchor)

    def place(self, point: Point) -> Point:
        x, y = (
            (self._scaled(point[i], i) - self.low[i]) / (self.high[i] - self.low[i]) for i in (0, 1)
        )
        return (
            (self.left + x * (self.right - self.left)) * self.factor,
            (self.bottom - y * (self.bottom - self.top)) * self.factor,
        )

    def axes(
        self, draw: ImageDraw.ImageDraw, lines: Sequence[Line], x_label: str, y_label: str
    ) -> None:
        longest = max(self.least, *(_length(line.name, 11) for line in lines))
        self.right = max(self.left + 120, self.size[0] - 52 - min(260, longest))
        xs = [p[0] for line in lines for p in line.points]
        ys = [p[1] for line in lines for p in line.points]
        ys += [v for line in lines for b in line.band for v in b[1:]]
        ends = [self._ends(values, axis) for axis, values in enumerate((xs, ys))]
        self.low, self.high = (ends[0][0], ends[1][0]), (ends[0][1], ends[1][1])
        for axis in (0, 1):
            known = sorted(set(xs)) if axis == 0 else []
            for value in ticks(self.low[axis], self.high[axis], self.log[axis], known):
                self._tick(draw, axis, value)
        box = [self.place(self._back(self.low)), self.place(self._back(self.high))]
        draw.rectangle(
            (box[0][0], box[1][1], box[1][0], box[0][1]), outline=GREY, width=self.factor
        )
        middle = (self.left + self.right) / 2
        self.text(draw, (middle, self.size[1] - 14), x_label, INK, 12, "mm")
        self.vertical = self._turned(y_label)

    def _back(self, point: Point) -> Point:
        x, y = (10 ** point[i] if self.log[i] else point[i] for i in (0, 1))
        return x, y

    def _ends(self, values: Sequence[float], axis: int) -> tuple[float, float]:
        scaled = [self._scaled(value, axis) for value in values]
        low, high = min(scaled), max(scaled)
        if axis == 1 and not self.log[1]:
            low = min(low, 0.0)
        room = (high - low) * 0.04 or abs(high) * 0.1 or 0.5
        return low - (room if low else 0), high + room

    def _tick(self, draw: ImageDraw.ImageDraw, axis: int, value: float) -> None:
        low, high = self._back(self.low), self._back(self.high)
        ends = (
            [(value, low[1]), (value, high[1])]
            if axis == 0
            else [(low[0], value), (high[0], value)]
        )
        start, end = self.place(ends[0]), self.place(ends[1])
        draw.line((start, end), GRID, self.factor)
        x, y = start[0] / self.factor, start[1] / self.factor
        if axis == 0:
            self.text(draw, (x, y + 5), f"{value:g}", GREY, 11, "mt")
        else:
            self.text(draw, (x - 6, y), f"{value:.5g}", GREY, 11, "rm")

    def line(self, draw: ImageDraw.ImageDraw, line: Line, number: int) -> None:
        colour = COLOURS[number % len(COLOURS)]
        if len(line.band) > 1:
            upper = [self.place((x, high)) for x, _, high in line.band]
            lower = [self.place((x, low)) for x, low, _ in reversed(line.band)]
            draw.polygon([*upper, *lower], (*colour, 36))
        places = [self.place(point) for point in line.points]
        if len(places) > 1:
            draw.line(places, colour, 2 * self.factor, joint="curve")
        for at in places:
            self._mark(draw, at, colour, number // len(COLOURS))

    def _mark(
        self, draw: ImageDraw.ImageDraw, at: Point, colour: tuple[int, int, int], kind: int
    ) -> None:
        r, (x, y) = 3 * self.factor, at
        if kind % 2 == 0:
            draw.ellipse((x - r, y - r, x + r, y + r), colour)
        else:
            draw.rectangle((x - r, y - r, x + r, y + r), colour)

    def legend(self, draw: ImageDraw.ImageDraw, lines: Sequence[Line]) -> None:
        x, space = self.right + 14, (self.bottom - self.top) / max(1, len(lines))
        height = min(18.0, space)
        for number, line in enumerate(lines):
            y = self.top + 8 + number * height
            colour = COLOURS[number % len(COLOURS)]
            draw.line(
                (x * self.factor, y * self.factor, (x + 14) * self.factor, y * self.factor),
                colour, 2 * self.factor,
            )  # fmt: skip
            self._mark(
                draw, ((x + 7) * self.factor, y * self.factor), colour, number // len(COLOURS)
            )
            self.text(draw, (x + 20, y), _short(line.name, 240), INK, 11, "lm")

    def _turned(self, text: str) -> Image.Image:
        font = ImageFont.load_default(12 * self.factor)
        size = (int(font.getlength(text)) + 8, 18 * self.factor)
        label = Image.new("RGB", size, PAPER)
        ImageDraw.Draw(label).text((4, size[1] // 2), text, INK, font, "lm")
        return label.rotate(90, expand=True)


def ticks(low: float, high: float, log: bool, known: Sequence[float] = ()) -> list[float]:
    """The values that an axis from low to high is labelled with; of its logarithms to 10 where it
    is logarithmic. known: what is drawn there, where it is few values, or whole ones."""
    if not log:
        whole = bool(known) and all(value == int(value) for value in known)
        return _even(low, high, 1.0 if whole else 0.0)
    if 0 < len(known) <= 8:
        return list(known)
    marks = (1,) if high - low > 3 else (1, 2, 5)
    found = [m * 10.0**p for p in range(math.floor(low), math.ceil(high) + 1) for m in marks]
    found = [tick for tick in found if low <= math.log10(tick) <= high]
    return found if len(found) > 2 else [tick for tick in _even(10**low, 10**high) if tick > 0]


def _even(low: float, high: float, least: float = 0.0) -> list[float]:
    """Round numbers, evenly spaced by at least so much, at most nine of them."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 8)
    step = max(step, least)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _length(text: str, size: int) -> int:
    return math.ceil(ImageFont.load_default(size).getlength(text))


def _short(text: str, width: int) -> str:
    while len(text) > 4 and _length(text, 11) > width:
        text = text[:-4] + "..."
    return text
