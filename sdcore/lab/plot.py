"""Error against NFE as a picture. Needs matplotlib, which only this file loads."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

from sdcore.errors import InputError
from sdcore.lab.order import Convergence
from sdcore.paths import check_folder, path_of
from sdcore.writing import write_whole


def check_plot(path: str | Path) -> Path:
    """The path, if a plot can be drawn and written there; before anything is measured.

    Raises InputError where matplotlib is missing, or for another ending or an unwritable folder.
    """
    path = path_of(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("plots need matplotlib: pip install 'sdcore[plot]'")
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"plots are .png, .svg or .pdf files, not {path.name!r}")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    check_folder(path.parent)
    return path


def draw_orders(results: Sequence[Convergence], path: Path, title: str) -> None:
    """Error of the method against NFE, both logarithmic, one line a solver."""
    # Without pyplot: no window system, no global state.
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for number, result in enumerate(results):
        label = f"{result.name} ({result.order:.2f})"
        style = ("-", "--", "-.", ":")[number // 10 % 4]  # ten colours, then another stroke
        axes.loglog(result.nfe, result.errors, style, marker=".", label=label)
    axes.set(xlabel="model evaluations", ylabel="max abs error", title=title)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize="small", ncols=1 + len(results) // 20)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=150)
    write_whole(path, buffer.getvalue())
