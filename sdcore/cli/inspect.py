"""`sdcore inspect`: what is in a file or a folder."""

import json
from collections.abc import Iterator
from typing import Any

import click

from sdcore.cli.echo import echo
from sdcore.errors import one_line


@click.command()
@click.argument("place", metavar="FILE_OR_FOLDER")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--variant", metavar="NAME", help="Of a folder's weights: fp16, non_ema ...")
def inspect(place: str, as_json: bool, variant: str | None) -> None:
    """Say what is in FILE_OR_FOLDER: a model, a LoRA, a textual inversion. No weights are read."""
    from sdcore.inspection import inspect as look

    report = look(place, variant)
    echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report)))


def _lines(report: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in report.items():
        label = key.replace("_", " ")
        if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
            yield f"{indent}{label}:"
            for name, part in value.items():
                yield f"{indent}  {name:16}" + "  ".join(
                    f"{k} {_shown(v)}" for k, v in part.items()
                )
        elif value not in ([], None):
            yield f"{indent}{label:16}  {_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{one_line(k)} ({_shown(v)})" for k, v in value.items())
    if isinstance(value, list):
        more = f" and {len(value) - 8} more" if value[8:] else ""
        return ", ".join(one_line(str(v)) for v in value[:8]) + more
    return f"{value:,}" if isinstance(value, int) else one_line(str(value))
