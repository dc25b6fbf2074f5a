"""The one way to a terminal: nothing that a file holds may steer it."""

from __future__ import annotations

import click

from sdcore.errors import one_line, printable


def echo(text: object = "", err: bool = False) -> None:
    """Print `text` and a line feed, its control characters escaped; to stderr if `err`."""
    click.echo(printable(str(text)), err=err)


def tell(message: str) -> None:
    """A remark to whoever sits before it: one line on stderr."""
    click.echo(f"sdcore: {one_line(message)}", err=True)
