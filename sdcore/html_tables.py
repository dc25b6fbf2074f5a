"""Tables as HTML, for values that show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

MOST = 60  # rows; of a longer table the first and the last are shown


def html_table(title: str, rows: Sequence[Sequence[object]], heads: Sequence[str] = ()) -> str:
    """A table, every text escaped: a prompt from a stranger is words, and no markup.

    heads: of the columns; without them the first column names the rows.
    """
    shown: list[Sequence[object]] = list(rows)
    if len(shown) > MOST:
        gap = ["..."] * len(shown[0])
        shown = [*shown[: MOST // 2], gap, *shown[-MOST // 2 :]]
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(f"<tr>{_cells(row, named=not heads)}</tr>" for row in shown)
    return (
        f"<table><caption><b>{escape(title)}</b></caption>"
        + (f"<thead><tr>{head}</tr></thead>" if heads else "")
        + f"<tbody>{body}</tbody></table>"
    )


def _cells(row: Sequence[object], named: bool) -> str:
    return "".join(
        f'<{tag} style="text-align:left">{escape(_written(value))}</{tag}>'
        for tag, value in zip(("th" if named else "td", *["td"] * len(row)), row, strict=False)
    )


def _written(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
