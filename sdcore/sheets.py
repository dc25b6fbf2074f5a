"""Many pictures on one: labelled contact sheets, and film strips of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw, ImageFont

MIN_SIDE = 96  # pixels; smaller pictures are enlarged so that a caption fits under them
PAPER, INK, GREY = (250, 249, 246), (38, 38, 42), (122, 120, 116)


class Pictures(list[Image.Image]):
    """Pictures, which show themselves in a notebook: one as it is, several as a sheet."""

    def sheet(self, captions: Sequence[str] = ()) -> Image.Image:
        """All of them in a grid, with the captions below, if there are any."""
        return contact_sheet(self, captions or [""] * len(self))

    def _repr_png_(self) -> bytes | None:
        if not self:
            return None
        return as_png(self[0] if len(self) == 1 else self.sheet())


def as_png(picture: Image.Image) -> bytes:
    """A picture as a notebook takes it, without settings."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Section:
    """A titled group of pictures, each with a caption ("" for none)."""

    title: str
    pictures: Sequence[Image.Image]
    captions: Sequence[str]


def contact_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], columns: int | None = None
) -> Image.Image:
    """All pictures in a grid, nearly square unless `columns` says otherwise."""
    if columns is None:
        columns = max(1, round((len(pictures) * 1.2) ** 0.5))
    return compose([Section("", pictures, captions)], columns)


def film_strip(
    frames: Sequence[Sequence[Image.Image]],
    captions: Sequence[str],
    titles: Sequence[str],
    columns: int = 10,
) -> Image.Image:
    """How pictures came to be: frames[i] are picture i's steps, under titles[i].

    captions: one for every step, the same for each picture. Steps beyond `columns` wrap evenly.
    """
    rows = -(-len(captions) // columns)
    sections = [Section(t, f, captions) for t, f in zip(titles, frames, strict=True)]
    return compose(sections, -(-len(captions) // rows))


def compose(sections: Sequence[Section], columns: int) -> Image.Image:
    """Lay the sections out below one another, each as rows of at most `columns` pictures."""
    sections = [replace(s, pictures=[_enlarged(p) for p in s.pictures]) for s in sections]
    sizes = [picture.size for section in sections for picture in section.pictures]
    width, height = (max(side) for side in zip(*sizes, strict=True))
    columns = min(columns, max(len(s.pictures) for s in sections))
    size = min(24, max(12, width // 11))
    page = _Page(
        cell=(width, height),
        gap=max(8, width // 12),
        body=ImageFont.load_default(size),
        head=ImageFont.load_default(round(size * 1.25)),
        columns=columns,
    )
    blocks = [page.measure(section) for section in sections]
    height = page.margin * 2 + sum(b.height for b in blocks) - page.gap
    sheet = Image.new("RGB", (page.width, height), PAPER)
    draw, y = ImageDraw.Draw(sheet), page.margin
    for section, block in zip(sections, blocks, strict=True):
        page.draw(sheet, draw, section, block, y)
        y += block.height
    return sheet


def _enlarged(picture: Image.Image) -> Image.Image:
    """By a whole factor, pixel by pixel, where the picture is narrower than MIN_SIDE."""
    factor = -(-MIN_SIDE // picture.width)
    size = (picture.width * factor, picture.height * factor)
    return picture if factor == 1 else picture.resize(size, Image.Resampling.NEAREST)


@dataclass(frozen=True)
class _Block:
    """A section's text broken into lines, and its heights in pixels."""

    title: list[str]
    captions: list[list[str]]
    rows: list[int]  # height of each row of cells, its gap included
    height: int


@dataclass(frozen=True)
class _Page:
    cell: tuple[int, int]  # width and height of a picture
    gap: int
    body: ImageFont.FreeTypeFont | ImageFont.ImageFont
    head: ImageFont.FreeTypeFont | ImageFont.ImageFont
    columns: int

    @property
    def margin(self) -> int:
        return round(self.gap * 1.5)

    @property
    def width(self) -> int:
        return self.margin * 2 + self.columns * (self.cell[0] + self.gap) - self.gap

    def measure(self, section: Section) -> _Block:
        inner = self.width - 2 * self.margin
        title = broken(section.title, self.head, inner, most=2)
        captions = [broken(c, self.body, self.cell[0], most=4) for c in section.captions]
        rows = []
        for start in range(0, len(section.pictures), self.columns):
            lines = max(len(c) for c in captions[start : start + self.columns])
            text = lines * line_height(self.body) + (self.gap // 2 if lines else 0)
            rows.append(self.cell[1] + text + self.gap)
        head = len(title) * line_height(self.head) + (self.gap // 2 if title else 0)
        return _Block(title, captions, rows, head + sum(rows))

    def draw(
        self, sheet: Image.Image, draw: ImageDraw.ImageDraw, section: Section, block: _Block, y: int
    ) -> None:
        for line in block.title:
            draw.text((self.margin, y), line, INK, self.head)
            y += line_height(self.head)
        y += self.gap // 2 if block.title else 0
        for row, height in enumerate(block.rows):
            for column in range(self.columns):
                i = row * self.columns + column
                if i >= len(section.pictures):
                    break
                x = self.margin + column * (self.cell[0] + self.gap)
                sheet.paste(section.pictures[i], (x, y))
                below = y + self.cell[1] + self.gap // 3
                for n, line in enumerate(block.captions[i]):
                    draw.text((x, below + n * line_height(self.body)), line, GREY, self.body)
            y += height


def line_height(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """Pixels from one line to the next."""
    box = font.getbbox("Ågjp|")
    return round((box[3] - box[1]) * 1.3)


def broken(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, most: int
) -> list[str]:
    """Each line of `text` as at most `most` lines of `width` pixels; '...' stands for the rest."""
    if "\n" in text:
        return [part for line in text.split("\n") for part in broken(line, font, width, most)]
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        elif len(lines) < most:
            lines.append(word)
        else:
            lines[-1] += " ..."
            break
    return [_fitted(line, font, width) for line in lines]


def _fitted(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    stem = line.removesuffix(" ...")
    while stem and font.getlength(stem + " ...") > width:
        stem = stem[:-1].rstrip()
    return stem + " ..."
