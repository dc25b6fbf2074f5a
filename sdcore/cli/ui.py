"""`sdcore ui`: the page, in a browser."""

from __future__ import annotations

import threading
from typing import Any

import click

from sdcore.cli.echo import echo
from sdcore.cli.grouped import Grouped
from sdcore.cli.serve import GROUPS, run, serve

_AT_ONCE = 0.3  # seconds: the server listens already, and answers by then


_SHARED = {option for options in GROUPS.values() for option in options}


@click.command(
    cls=Grouped,
    groups=GROUPS,
    params=[
        click.Option(["--no-browser"], is_flag=True, help="Only print the address."),
        *(option for option in serve.params if option not in _SHARED),
    ],
)
def ui(no_browser: bool, **options: Any) -> None:
    """Draw on a page, and study the loop: serve, and open it in the browser.

    Every step is kept: scrub through them, branch from any of them, set two solvers side by side.
    Whatever is there can be copied as the command or as Python. The options are those of serve.
    """

    def opened(line: str) -> None:
        echo(line, err=True)
        if not no_browser:
            timer = threading.Timer(_AT_ONCE, _open, [line.split()[0]])
            timer.daemon = True
            timer.start()

    run(options, opened)


def _open(address: str) -> None:
    import webbrowser

    for everywhere in ("//0.0.0.0:", "//[::]:"):  # where it listens, and no place to go to
        address = address.replace(everywhere, "//127.0.0.1:")
    webbrowser.open(address)
