"""The eight places of the picture-book world: skies, hills and a few quiet things far away."""

from collections.abc import Callable

import numpy as np

from scripts.train.figures import cloud
from scripts.train.paint import Array, Canvas, Colour, ellipse, lighter, mix, outline, rounded

Rng = np.random.Generator


def _hills(canvas: Canvas, rng: Rng, level: float, swing: float, waves: float = 1.0) -> Array:
    """A rolling line: one slow wave and a slower one, so that no two pictures share it."""
    start, other = rng.uniform(0, 2 * np.pi, 2)
    x = 2 * np.pi * waves * canvas.x
    line = 0.65 * np.sin(x * rng.uniform(0.6, 1.1) + start) + 0.35 * np.sin(1.7 * x + other)
    return level + swing * line


def _clouds(canvas: Canvas, rng: Rng, count: int, colour: Colour, opacity: float = 0.85) -> None:
    for share in (rng.permutation(3)[:count] + rng.uniform(0.2, 0.8, count)) / 3:
        shape = cloud(float(share), rng.uniform(0.08, 0.26), rng.uniform(0.2, 0.32))
        canvas.paint(shape, colour, volume=0.35, rim=0, opacity=opacity)


def _dots(canvas: Canvas, rng: Rng, count: int, lowest: float, colour: Colour) -> None:
    """Soft dots for stars and snowflakes, one to a cell of a grid, so that they never clump."""
    for cell in rng.permutation(18)[:count]:
        x = (cell % 6 + rng.uniform(0.2, 0.8)) / 6
        y = (cell // 6 + rng.uniform(0.2, 0.8)) / 3 * lowest
        canvas.disc(x, y, rng.uniform(0.011, 0.016), colour, soft=0.014)


def _meadow(canvas: Canvas, rng: Rng) -> None:
    canvas.gradient([(0, (120, 190, 240)), (0.65, (214, 238, 248))])
    x = float(rng.choice([0.12, 0.88])) + rng.uniform(-0.05, 0.05)
    y = rng.uniform(0.1, 0.18)
    canvas.glow(x, y, 0.2, (255, 250, 210), 0.7)
    canvas.disc(x, y, 0.07, (255, 244, 190), soft=0.015)
    _clouds(canvas, rng, int(rng.integers(1, 3)), (255, 255, 255))
    line = _hills(canvas, rng, rng.uniform(0.52, 0.57), 0.045)
    canvas.land(line, (168, 212, 150), (140, 200, 130))
    line = _hills(canvas, rng, rng.uniform(0.64, 0.68), 0.03)
    canvas.land(line, (150, 208, 104), (104, 178, 78))


def _sunset(canvas: Canvas, rng: Rng) -> None:
    stops = [(0, (132, 86, 138)), (0.3, (214, 118, 148)), (0.5, (248, 168, 124))]
    canvas.gradient([*stops, (0.66, (255, 216, 150))])
    x, level = rng.uniform(0.2, 0.8), rng.uniform(0.6, 0.65)
    canvas.glow(x, level, 0.3, (255, 226, 150), 0.8)
    canvas.disc(x, level, 0.13, (255, 236, 176), soft=0.015)
    for share in rng.uniform(0.1, 0.9, 2):
        y = rng.uniform(0.12, 0.36)
        streak = [
            ellipse(float(share), y, 0.17, 0.02),
            ellipse(float(share) + 0.06, y + 0.03, 0.12, 0.018),
        ]
        canvas.paint(streak, (250, 180, 160), volume=0, rim=0, opacity=0.55)
    canvas.land(_hills(canvas, rng, level + 0.01, 0.025), (158, 92, 104), (128, 74, 88))
    canvas.land(_hills(canvas, rng, level + 0.08, 0.03), (122, 72, 82), (76, 46, 62))


def _night(canvas: Canvas, rng: Rng) -> None:
    canvas.gradient([(0, (18, 22, 62)), (0.65, (62, 76, 140))])
    _dots(canvas, rng, int(rng.integers(8, 13)), 0.5, (238, 238, 222))
    x = float(rng.choice([0.14, 0.84])) + rng.uniform(-0.04, 0.04)
    y = rng.uniform(0.12, 0.18)
    canvas.glow(x, y, 0.17, (190, 200, 240), 0.45)
    moon = np.hypot(canvas.x - x, canvas.y - y)
    bite = np.hypot(canvas.x - x - 0.045, canvas.y - y + 0.025)
    lit = ((0.085 - moon) / 0.01).clip(0, 1) * ((bite - 0.075) / 0.01).clip(0, 1)
    canvas.blend(lit, (250, 242, 208))
    canvas.land(
        _hills(canvas, rng, rng.uniform(0.55, 0.6), 0.045), (44, 62, 104), (36, 52, 88), 0.1
    )
    canvas.land(_hills(canvas, rng, rng.uniform(0.67, 0.7), 0.03), (36, 62, 82), (22, 38, 58), 0.12)


def _sea(canvas: Canvas, rng: Rng) -> None:
    canvas.gradient([(0, (136, 206, 240)), (0.45, (222, 242, 246))])
    _clouds(canvas, rng, int(rng.integers(1, 4)), (255, 255, 255))
    horizon = rng.uniform(0.4, 0.45)
    level = np.full((1, canvas.size), horizon, np.float32)
    canvas.land(level, (58, 146, 190), (96, 200, 206), 0.12)
    for y in (horizon + 0.07, horizon + 0.15, horizon + 0.24):
        x = rng.uniform(0.05, 0.95)
        for middle in (x - 0.5, x, x + 0.5):
            crest = [ellipse(middle, y, 0.11, 0.011)]
            canvas.paint(crest, (206, 238, 240), volume=0, rim=0, opacity=0.6)
    shore = _hills(canvas, rng, rng.uniform(0.71, 0.74), 0.02)
    canvas.land(shore - 0.02, (244, 252, 250), (244, 252, 250), 0)
    canvas.land(shore + 0.012, (238, 216, 170), (246, 228, 186), 0)


def _desert(canvas: Canvas, rng: Rng) -> None:
    canvas.gradient([(0, (150, 204, 214)), (0.55, (252, 236, 200))])
    x, y = rng.uniform(0.15, 0.85), rng.uniform(0.1, 0.2)
    canvas.glow(x, y, 0.24, (255, 250, 224), 0.9)
    canvas.disc(x, y, 0.075, (255, 252, 232), soft=0.015)
    level = rng.uniform(0.55, 0.59)
    middle, width = float(rng.choice([0.2, 0.8])) + rng.uniform(-0.06, 0.06), rng.uniform(0.14, 0.2)
    mesa = outline((-1.3, 0.1), (-0.9, -0.13), (0.8, -0.13), (1.2, 0.1))
    rock = mesa * outline((width, 1)) + outline((middle, level))
    canvas.paint([rounded(rock, 0.1)], (202, 146, 118), volume=0.4, rim=0)
    canvas.land(_hills(canvas, rng, level, 0.035), (226, 176, 116), (220, 168, 108))
    canvas.land(_hills(canvas, rng, level + 0.06, 0.03), (238, 196, 136), (226, 176, 114))
    cactus_x = float(rng.choice([0.06, 0.94])) + rng.uniform(-0.02, 0.02)
    for dx, dy, rx, ry in (
        (0, 0, 0.017, 0.075),
        (-0.035, 0.0, 0.012, 0.03),
        (0.035, -0.015, 0.012, 0.03),
    ):
        stem = [
            ellipse(cactus_x + dx, level + dy, rx, ry),
            ellipse(cactus_x + dx / 2, level + dy + 0.025, 0.024, 0.01),
        ]
        canvas.paint(stem, (118, 140, 104), volume=0.5, rim=0)
    canvas.land(_hills(canvas, rng, level + 0.14, 0.035), (244, 206, 148), (222, 168, 106), 0.35)


def _snow(canvas: Canvas, rng: Rng) -> None:
    canvas.gradient([(0, (150, 172, 204)), (0.6, (214, 224, 238))])
    canvas.land(
        _hills(canvas, rng, rng.uniform(0.5, 0.54), 0.045), (206, 218, 236), (198, 212, 234)
    )
    line = _hills(canvas, rng, rng.uniform(0.6, 0.64), 0.03)
    for share in rng.uniform(0, 1, int(rng.integers(3, 6))):
        foot = float(line[0, min(int(share * canvas.size), canvas.size - 1)]) + 0.02
        tall = rng.uniform(0.11, 0.17)
        shape = outline((0, -1), (0.36, 0), (-0.36, 0)) * tall + (float(share), foot)
        canvas.paint([rounded(shape, 0.06)], (128, 152, 168), volume=0.5, rim=0)
        cap = outline((0, -1), (0.18, -0.5), (0, -0.42), (-0.18, -0.5)) * tall + (
            float(share),
            foot,
        )
        canvas.paint([rounded(cap, 0.06)], (240, 245, 252), volume=0, rim=0)
    canvas.land(line, (232, 239, 248), (216, 226, 242))
    canvas.land(
        _hills(canvas, rng, rng.uniform(0.72, 0.76), 0.03), (244, 248, 253), (212, 224, 242)
    )
    _dots(canvas, rng, int(rng.integers(9, 14)), 0.62, (250, 252, 255))


def _mountains(canvas: Canvas, rng: Rng) -> None:
    canvas.gradient([(0, (150, 182, 226)), (0.6, (240, 232, 236))])
    _clouds(canvas, rng, int(rng.integers(0, 2)), (255, 252, 252), 0.7)
    peaks = [(0.2, 0.3, 0.3), (0.55, 0.17, 0.36), (0.88, 0.27, 0.3)]
    for share, top, spread in (peaks[i] for i in (0, 2, 1)):
        _peak(canvas, share + rng.uniform(-0.08, 0.08), top + rng.uniform(-0.04, 0.05), spread)
    canvas.land(
        _hills(canvas, rng, rng.uniform(0.6, 0.63), 0.03), (126, 154, 150), (104, 136, 132), 0.15
    )
    canvas.land(
        _hills(canvas, rng, rng.uniform(0.7, 0.73), 0.03), (120, 152, 124), (78, 112, 96), 0.15
    )


def _peak(canvas: Canvas, x: float, top: float, spread: float) -> None:
    """One mountain: a lit flank, a shaded one, and snow with a scalloped hem."""
    rock: Colour = (140, 142, 172)
    slope = (0.72 - top) / spread
    flanks = outline((x, top), (x + spread, 0.72), (x - spread, 0.72))
    canvas.paint([rounded(flanks, 0.02)], lighter(rock, 0.2), volume=0, rim=0)
    shade = outline(
        (x, top + 0.01), (x + spread, 0.72), (x - 0.05, 0.72), (x + 0.03, 0.45), (x - 0.01, 0.32)
    )
    canvas.paint([rounded(shade, 0.02)], mix(rock, (104, 106, 146), 0.6), volume=0, rim=0)
    deep = 0.16
    reach = deep / slope
    hem = [(1, 0.0), (0.45, -0.045), (0.12, 0.01), (-0.3, -0.05), (-1, 0.0)]
    snow = outline((x, top), *((x + a * reach, top + deep + b) for a, b in hem))
    canvas.paint([rounded(snow, 0.05)], (246, 248, 253), volume=0.5, rim=0)


def _moon(canvas: Canvas, rng: Rng) -> None:
    canvas.gradient([(0, (10, 10, 18)), (0.65, (34, 32, 48))])
    _dots(canvas, rng, int(rng.integers(8, 13)), 0.55, (226, 226, 232))
    x = float(rng.choice([0.15, 0.84])) + rng.uniform(-0.05, 0.05)
    y = rng.uniform(0.12, 0.2)
    canvas.glow(x, y, 0.13, (120, 170, 230), 0.5)
    canvas.paint([ellipse(x, y, 0.085, 0.085)], (86, 150, 214), volume=0.8, rim=0)
    lands = (
        ellipse(x - 0.025, y - 0.02, 0.035, 0.025, 0.5),
        ellipse(x + 0.03, y + 0.03, 0.03, 0.02, -0.4),
    )
    canvas.paint(lands, (140, 184, 140), volume=0, rim=0)
    canvas.land(
        _hills(canvas, rng, rng.uniform(0.55, 0.58), 0.04), (112, 112, 120), (96, 96, 106), 0.12
    )
    canvas.land(
        _hills(canvas, rng, rng.uniform(0.64, 0.67), 0.025), (164, 163, 168), (126, 125, 134), 0.2
    )
    for share in (rng.permutation(4) + rng.uniform(0.25, 0.75, 4)) / 4:
        y, rx = rng.uniform(0.74, 0.96), rng.uniform(0.06, 0.1)
        canvas.paint(
            [ellipse(float(share), y + 0.008, rx, 0.36 * rx)], (184, 183, 188), volume=0, rim=0
        )
        canvas.paint(
            [ellipse(float(share), y, 0.92 * rx, 0.32 * rx)], (108, 107, 117), volume=-0.5, rim=0
        )


SCENERY: dict[str, Callable[[Canvas, Rng], None]] = {
    "meadow": _meadow,
    "sunset": _sunset,
    "night": _night,
    "sea": _sea,
    "desert": _desert,
    "snow": _snow,
    "mountains": _mountains,
    "moon": _moon,
}

CLOUDS: dict[str, Colour] = {
    "sunset": (250, 208, 190),
    "night": (128, 140, 186),
    "moon": (150, 150, 160),
}
"""What a cloud that carries something looks like where white would be out of tune."""


def paint_scene(canvas: Canvas, scene: str, rng: Rng) -> None:
    """Fill the canvas with a scene, tinted a little differently every time."""
    SCENERY[scene](canvas, rng)
    canvas.pixels[:] *= rng.uniform(0.96, 1.03) * rng.uniform(0.98, 1.02, 3)
