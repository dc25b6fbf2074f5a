"""A page of the docs that a script writes."""

from pathlib import Path

import click

from sdcore.writing import write_whole

shown_option = click.option("--print", "shown", is_flag=True, help="To stdout; writes nothing.")


def put(page: Path, text: str, shown: bool) -> None:
    """Write the page, or print it."""
    if shown:
        click.echo(text, nl=False)
    else:
        write_whole(page, text.encode())
