"""A comparison to look at: the labelled sheet, the plot of error against NFE, the tables."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from sdcore.a1111 import bare
from sdcore.charts import Line, chart
from sdcore.experiments.comparison import Reference, Row
from sdcore.sheets import Section, as_png, compose

MOST = 400  # pictures on a sheet


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` returned, to look at: in a notebook it shows itself as its sheet."""

    rows: Sequence[Row]
    reference: Reference

    def __repr__(self) -> str:
        return f"Comparison({len(self.rows)} pictures beside {self.reference})"

    def sheet(self) -> Image.Image:
        return sheet(self.rows, self.reference)

    def plot(self) -> Image.Image:
        return plot(self.rows)

    def _repr_png_(self) -> bytes:
        return as_png(self.sheet())


def sheet(rows: Sequence[Row], reference: Reference) -> Image.Image:
    """All pictures: for each prompt the references, then a part for each seed.

    In it a column for each value of the option that changes first, a row for each of the others'.
    Of more than `MOST` pictures the first seeds are shown.
    """
    shown, hidden = _fitting(rows)
    sections = []
    last = [name for row in rows for name in row.cell.labels][-1:]
    columns = len({str(row.cell.labels.get(last[0])) for row in rows}) if last else 4
    for prompt in dict.fromkeys(row.cell.prompt for row in shown):
        of_prompt = [row for row in shown if row.cell.prompt == prompt]
        sections.append(_references(prompt, of_prompt, reference, hidden))
        for seed in dict.fromkeys(row.cell.seed for row in of_prompt):
            cells = [row for row in of_prompt if row.cell.seed == seed]
            captions = [caption(row) for row in cells]
            pictures = [row.drawing.picture for row in cells]
            sections.append(Section(f"{prompt}, seed {seed}", pictures, captions))
    return compose(sections, columns)


def _fitting(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The rows of the first seeds, and how many seeds are left out."""
    seeds = list(dict.fromkeys(row.cell.seed for row in rows))
    most = max(1, min(len(seeds), MOST * len(seeds) // max(1, len(rows))))
    return [row for row in rows if row.cell.seed in seeds[:most]], len(seeds) - most


def _references(prompt: str, rows: Sequence[Row], reference: Reference, hidden: int) -> Section:
    unique = {id(row.reference): row for row in rows}.values()
    captions = [
        f"seed {row.cell.seed}, cfg {row.reference.settings.cfg:g}\n{row.reference.nfe} NFE, "
        f"own error {row.reference_error:.1g}"
        for row in unique
    ]
    title = (
        f"{prompt}: the references\n{reference.steps} steps of {reference.scheduler} "
        f"{reference.spacing}\nerror: root mean square of the latents' difference from them"
    )
    if any(row.stochastic for row in rows):
        title += "\nsolvers that draw noise are compared in distribution, over all seeds"
    if hidden:
        title += f"\n{hidden} more seeds are in the tables"
    return Section(title, [row.reference.picture for row in unique], captions)


def caption(row: Row) -> str:
    """What stands under a picture."""
    labels = [f"{name.replace('_', ' ')} {bare(str(v))}" for name, v in row.cell.labels.items()]
    return "\n".join((*labels, f"{row.drawing.nfe} NFE, {_distance(row)}"))


def _distance(row: Row) -> str:
    if row.error is not None:
        return f"error {row.error:.3g}"
    far = row.distribution
    if far is None:
        return "draws noise: of one seed nothing can be said"
    return f"in distribution {far.energy:.2g} (p {far.p:.2g})"


def plot(rows: Sequence[Row]) -> Image.Image:
    """Error against NFE: the median over seeds and prompts, with all between least and largest.

    Solvers that draw noise are left out: no picture of theirs has an error.
    """
    lines = []
    sets: dict[str, list[Row]] = {}
    for row in rows:
        labels = {k: v for k, v in row.cell.labels.items() if k not in ("steps", "nfe")}
        name = ", ".join(bare(str(value)) for value in labels.values())
        sets.setdefault(name or row.drawing.settings.scheduler, []).append(row)
    for name, members in sets.items():
        points, band = [], []
        for nfe in sorted({row.drawing.nfe for row in members}):
            errors = [row.error for row in members if row.drawing.nfe == nfe and row.error]
            if errors:
                points.append((nfe, statistics.median(errors)))
                band.append((nfe, min(errors), max(errors)))
        if points:
            lines.append(Line(name, points, band))
    seeds, prompts = (len({getattr(row.cell, of) for row in rows}) for of in ("seed", "prompt"))
    title = f"Distance to the reference: median and range over {seeds} seed{'s' * (seeds > 1)}"
    title += f" of {prompts} prompts" * (prompts > 1)
    return chart(lines, title, "NFE", "root mean square of the latents' error", True, True)


def as_csv(rows: Sequence[Row]) -> bytes:
    """A line for each cell."""
    text = io.StringIO()
    facts = [row.facts() for row in rows]
    writer = csv.DictWriter(text, list(facts[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(facts)
    return text.getvalue().encode()


def as_json(rows: Sequence[Row], reference: Reference) -> bytes:
    """The same, with the settings of every cell and what the reference was."""
    whole = {
        "reference": vars(reference),
        "cells": [
            {name: None if value == math.inf else value for name, value in row.facts().items()}
            | {"settings": json.loads(row.drawing.settings.to_json())}
            for row in rows
        ],
    }
    return (json.dumps(whole, indent=1) + "\n").encode()
