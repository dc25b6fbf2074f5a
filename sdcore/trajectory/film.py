"""A recorded run as pictures, without the model: a film strip, an animation, a plot."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from sdcore.charts import Line, chart
from sdcore.sheets import GREY, PAPER
from sdcore.trajectory.file import Trajectory, shown_settings
from sdcore.trajectory.frames import enlarged
from sdcore.trajectory.geometry import Shape


def strip(trajectory: Trajectory) -> Image.Image:
    """All recorded steps of each picture: what was thought (x0), and what was there (x)."""
    return trajectory.strip()


def last_frames(trajectory: Trajectory) -> list[Image.Image]:
    """Where each picture ended."""
    return enlarged(trajectory.colours_shown(trajectory.x_next * trajectory.end_scale))


def animation(trajectory: Trajectory, milliseconds: int = 120) -> bytes:
    """An animated WebP: x0 of each picture above its x, step by step; the end stays a second."""
    names = [name for name in ("x0", "x") if name in trajectory.tensors] or ["x0"]
    films = [trajectory.frames(name) for name in names]
    ends = last_frames(trajectory)
    pages = [
        _page([[film[i][n] for i in range(len(ends))] for film in films], caption)
        for n, caption in enumerate(
            f"step {each.index + 1} of {len(trajectory.sigmas) - 1}, sigma {each.sigma:.3g}"
            for each in trajectory.moments
        )
    ]
    pages.append(_page([ends for _ in films], f"the end of {len(trajectory.sigmas) - 1} steps"))
    buffer = io.BytesIO()
    durations = [milliseconds] * (len(pages) - 1) + [1000]
    more = {"save_all": True, "append_images": pages[1:], "duration": durations, "loop": 0}
    pages[0].save(buffer, "WEBP", quality=80, **more)
    return buffer.getvalue()


def plot(trajectory: Trajectory, rows: Sequence[Shape]) -> Image.Image:
    """Norms, angles and curvature against the step, means over the pictures."""
    first, *rest = shown_settings(trajectory)
    title = f"{first}, and {len(rest)} more" if rest else first
    panels = [
        ("root mean square", ("x", "x0", "eps", "x0_moved"), True),
        ("degrees between eps and the step before", ("angle",), False),
        ("curvature: change of eps for each unit of ln sigma", ("curvature",), True),
    ]
    drawn = []
    for label, names, logarithmic in panels:
        lines = [
            Line(name.replace("_", " "), points)
            for name in names
            if (points := _points(rows, name, logarithmic))
        ]
        if lines:
            drawn.append(
                chart(lines, title, "step", label, log_y=logarithmic, size=(760, 320), legend=60)
            )
    return _stacked(drawn)


def _points(rows: Sequence[Shape], name: str, positive: bool) -> list[tuple[float, float]]:
    values = [(row.step, getattr(row, name)) for row in rows]
    return [(step, value) for step, value in values
            if value is not None and (value > 0 or not positive)]  # fmt: skip


def _stacked(images: Sequence[Image.Image]) -> Image.Image:
    width, height = max(i.width for i in images), sum(i.height for i in images)
    sheet, y = Image.new("RGB", (width, height), PAPER), 0
    for each in images:
        sheet.paste(each, (0, y))
        y += each.height
    return sheet


def _page(rows: Sequence[Sequence[Image.Image]], caption: str) -> Image.Image:
    width, height = rows[0][0].size
    page = Image.new("RGB", (max(200, width * len(rows[0])), height * len(rows) + 20), PAPER)
    for y, row in enumerate(rows):
        for x, each in enumerate(row):
            page.paste(each, (x * width, y * height))
    ImageDraw.Draw(page).text((4, height * len(rows) + 4), caption, GREY)
    return page
