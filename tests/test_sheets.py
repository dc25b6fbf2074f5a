"""Sheets hold every picture whole, and their text stays inside."""

from PIL import Image, ImageChops, ImageFont

from sdcore.sheets import PAPER, broken, contact_sheet, film_strip

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]


def tiles(count: int, size: int = 100) -> list[Image.Image]:
    return [Image.new("RGB", (size, size), COLOURS[i % 5]) for i in range(count)]


def pixels_of(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    colours = sheet.getcolors(1 << 24)
    assert colours is not None
    return next((n for n, c in colours if c == colour), 0)


def test_every_picture_is_there_whole() -> None:
    sheet = contact_sheet(tiles(5), [f"seed {i}" for i in range(5)])
    assert all(pixels_of(sheet, c) == 100 * 100 for c in COLOURS)


def test_margins_are_paper() -> None:
    sheet = contact_sheet(tiles(5), ["a long caption " * 9] * 5)
    inked = ImageChops.difference(sheet, Image.new("RGB", sheet.size, PAPER)).getbbox()
    assert inked is not None
    left, top, right, bottom = inked
    assert min(left, top, sheet.width - right, sheet.height - bottom) >= 6


def test_one_picture_and_few_columns() -> None:
    one = contact_sheet(tiles(1), [""])
    assert one.width < 100 * 2
    tall = contact_sheet(tiles(4), [""] * 4, columns=1)
    assert tall.height > 4 * 100


def test_small_pictures_are_enlarged() -> None:
    sheet = contact_sheet(tiles(2, size=32), ["", ""])
    assert pixels_of(sheet, COLOURS[0]) == pixels_of(sheet, COLOURS[1]) == 96 * 96


def test_film_strips_wrap_evenly() -> None:
    frames = [tiles(21), tiles(21)]
    strip = film_strip(frames, [str(i) for i in range(21)], ["one", "two"], columns=10)
    assert strip.width < 8 * 100 + 100  # 21 steps are three rows of seven
    assert sum(pixels_of(strip, c) for c in COLOURS) == 42 * 100 * 100


def test_broken_lines_fit() -> None:
    font = ImageFont.load_default(12)
    for text in ("a b c", "word " * 40, "x" * 300, "one\ntwo " + "three " * 30):
        assert all(font.getlength(line) <= 80 for line in broken(text, font, 80, most=2))
    assert broken("", font, 80, most=2) == []
    assert len(broken("word " * 40, font, 80, most=2)) == 2
    assert broken("word " * 40, font, 80, most=2)[-1].endswith("...")
