"""The `sdcore` command: parse, call, print."""

import os
import sys
from collections.abc import Sequence

import click

from sdcore.cli.check import check
from sdcore.cli.convert import convert
from sdcore.cli.download import download
from sdcore.cli.echo import tell
from sdcore.cli.inspect import inspect
from sdcore.cli.lab import lab
from sdcore.cli.merge import merge
from sdcore.cli.parity import parity
from sdcore.cli.plan import plan
from sdcore.cli.rerun import rerun
from sdcore.cli.sample import sample
from sdcore.cli.schedulers import schedulers
from sdcore.errors import InputError
from sdcore.version import VERSION


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="sdcore")
def cli() -> None:
    """Draw pictures with Stable Diffusion, and see how."""


cli.add_command(sample)
cli.add_command(rerun)
cli.add_command(schedulers)
cli.add_command(plan)
cli.add_command(lab)
cli.add_command(check)
cli.add_command(parity)
cli.add_command(download)
cli.add_command(convert)
cli.add_command(merge)
cli.add_command(inspect)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line. What the user can mend is one line on stderr and exit status 2."""
    # Before torch is loaded: an OpenMP thread that waits spins by default, and where something
    # else wants the core a picture of 0.3 s then takes up to minutes. Waiting asleep costs nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status = cli.main(args=args, prog_name="sdcore", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except InputError as error:
        _fail(str(error), 2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("stopped; the pictures named above are whole", 130)
    except BrokenPipeError:  # `sdcore ... | head`: nobody reads on, which is no mistake
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _fail(message: str, status: int) -> None:
    tell(message)
    sys.exit(status)
