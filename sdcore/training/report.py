"""report.html: how a training went, on one page that holds its curves and pictures itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from sdcore.charts import Line, chart
from sdcore.training.plan import Plan
from sdcore.training.record import Look, Record
from sdcore.version import VERSION
from sdcore.writing import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #26262a; background: #faf9f6;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
img { max-width: 100% } p img { width: 45rem }
table { border-collapse: collapse } td, th { padding: .15rem .9rem .15rem 0; text-align: left }
.sheets { display: flex; flex-wrap: wrap; gap: 0 1.5rem; align-items: end }
figure { margin: 0 0 1.5rem } figcaption { color: #7a7874 }
"""
SMOOTHED = 50  # steps, at most, in the mean that the loss is shown as
CURVES, POINTS = 5, 60  # in a chart, in a curve: at most


def write_report(
    path: Path, name: str, plan: Plan, total: int, record: Record, origin: str = ""
) -> None:
    """Write the page in place of an earlier one. origin: which model learns, from what."""
    done = record.steps[-1].step if record.steps else 0
    head = f"{plan.method}{f' of {origin}' if origin else ''}, {done} of {total} steps"
    body = [f"<h1>{escape(name)}</h1><p>{escape(head)}; sdcore {VERSION}</p>"]
    if record.looks:
        body += [
            "<h2>The loss on a fixed grid of noise and noise levels</h2>",
            "<p>The mean squared error of what the network says, not weighted; the same pictures "
            "and the same noise each time, so that curves can be compared.</p>",
            _by_sigma(record.looks, "loss"),
            _table(record.looks),
            "<h2>What has changed, by noise level</h2>",
            "<p>How far the network's answers are from those before the training: RMS, as a share "
            "of what it said then.</p>",
            _by_sigma(record.looks[1:], "change"),
        ]
    if record.steps:
        body += ["<h2>Step by step</h2>", _loss(record), _rate(record)]
    body.append("<h2>Pictures over time</h2>")
    sheets = [_figure(path.parent, look) for look in record.looks if look.sheet is not None]
    body.append(f'<div class="sheets">{"".join(sheets)}</div>')
    rows = "".join(f"<tr><td>{escape(k)}</td><td>{escape(_written(v))}</td></tr>"
                   for k, v in plan.as_dict().items() if v not in (None, ()))  # fmt: skip
    body.append(f"<h2>The plan</h2><table>{rows}</table>")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(name)}</title>'
        f"<style>{_STYLE}</style>{''.join(body)}</html>\n"
    )
    write_whole(path, page.encode())


def _written(value: object) -> str:
    return "; ".join(value) if isinstance(value, tuple) else str(value)


def _by_sigma(looks: Sequence[Look], what: str) -> str:
    lines = [
        Line(
            f"step {look.step}",
            list(zip(look.measured.sigmas, getattr(look.measured, what), strict=True)),
        )
        for look in _spread(looks, CURVES)
    ]
    title = {"loss": "loss by noise level", "change": "change by noise level"}[what]
    return _shown(chart(lines, title, "sigma", what, log_x=True, log_y=what == "loss"), title)


def _table(looks: Sequence[Look]) -> str:
    first, last = looks[0].measured, looks[-1].measured
    rows = "".join(
        f"<tr><td>{s:.3g}</td><td>{a:.4f}</td><td>{b:.4f}</td>"
        f"<td>{100 * (b / a - 1):+.1f} %</td></tr>"
        for s, a, b in zip(first.sigmas, first.loss, last.loss, strict=True)
    )
    return (
        "<table><tr><th>sigma</th><th>loss before</th><th>now</th><th></th></tr>"
        f"{rows}</table>"
    )  # fmt: skip


def _loss(record: Record) -> str:
    steps, window = record.steps, max(1, min(SMOOTHED, len(record.steps) // 10))
    losses = [step.loss for step in steps]
    parts = [losses[max(0, i + 1 - window) : i + 1] for i in range(len(losses))]
    sums = [sum(part) / len(part) for part in parts]
    title = f"loss of a step, weighted; the mean of {window}"
    points = [(float(s.step), value) for s, value in zip(steps, sums, strict=True)]
    return _shown(chart([Line("loss", _thinned(points))], title, "step", "loss"), title)


def _rate(record: Record) -> str:
    points = [(float(step.step), step.rate) for step in record.steps]
    title = "learning rate"
    return _shown(chart([Line(title, _thinned(points))], title, "step", "rate"), title)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `POINTS` of them, the last among them."""
    every = -(-len(points) // POINTS)
    return points[::-1][::every][::-1]


def _shown(picture: Image, alt: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"<p>{_image(buffer.getvalue(), alt)}</p>"


def _image(data: bytes, alt: str) -> str:
    coded = base64.b64encode(data).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{coded}">'


def _figure(place: Path, look: Look) -> str:
    file = place / str(look.sheet)
    if not file.is_file():
        return ""
    words = f"after step {look.step}"
    image = _image(file.read_bytes(), f"pictures {words}")
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>"


def _spread(looks: Sequence[Look], most: int) -> list[Look]:
    """At most so many of them, the first and the last among them."""
    if len(looks) <= most:
        return list(looks)
    return [looks[round(i * (len(looks) - 1) / (most - 1))] for i in range(most)]
