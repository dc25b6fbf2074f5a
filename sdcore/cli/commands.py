"""Every command of `sdcore`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from sdcore import __version__
from sdcore.cli.bench import bench
from sdcore.cli.check import check
from sdcore.cli.convert import convert
from sdcore.cli.download import download
from sdcore.cli.guidances import guidances
from sdcore.cli.inspect import inspect
from sdcore.cli.invert import invert, likelihood
from sdcore.cli.lab import lab
from sdcore.cli.merge import merge
from sdcore.cli.parity import parity
from sdcore.cli.plan import plan
from sdcore.cli.rerun import rerun
from sdcore.cli.resume import resume
from sdcore.cli.sample import sample
from sdcore.cli.schedulers import schedulers
from sdcore.errors import InputError


class _Unread(Exception):
    """Nobody reads the output on. click would end with status 1."""


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk is told now, and not when Python ends
    except BrokenPipeError as error:
        raise _Unread from error


class _Commands(click.Group):
    def make_context(self, *args: Any, **more: Any) -> click.Context:  # --help prints in here
        with _heard():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _heard():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)
@click.version_option(__version__, prog_name="sdcore")
def cli() -> None:
    """Draw pictures with Stable Diffusion, and see how."""


for command in (
    sample,
    rerun,
    resume,
    invert,
    likelihood,
    schedulers,
    guidances,
    plan,
    lab,
    check,
    parity,
    download,
    convert,
    merge,
    inspect,
    bench,
):
    cli.add_command(command)


def run(args: Sequence[str] | None) -> int:
    """The exit status of a command. Raises InputError, KeyboardInterrupt, BrokenPipeError."""
    try:
        status = cli.main(args=args, prog_name="sdcore", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        raise InputError(error.format_message()) from None
    except click.Abort:
        raise KeyboardInterrupt from None
    except _Unread:
        raise BrokenPipeError from None
