"""Every command of `sdcore`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from sdcore import __version__
from sdcore.cli.bench import bench
from sdcore.cli.check import check
from sdcore.cli.compare import compare
from sdcore.cli.config import config
from sdcore.cli.convert import convert
from sdcore.cli.defaults import (
    SHOWN,
    asked,
    config_options,
    defaults_of,
    origins,
    takes_defaults,
)
from sdcore.cli.download import download
from sdcore.cli.guidances import guidances
from sdcore.cli.inspect import inspect
from sdcore.cli.invert import invert, likelihood
from sdcore.cli.lab import lab
from sdcore.cli.lora import lora
from sdcore.cli.merge import merge
from sdcore.cli.metrics import metrics
from sdcore.cli.parity import parity
from sdcore.cli.plan import plan
from sdcore.cli.presets import ASKED
from sdcore.cli.quantize import quantize
from sdcore.cli.replay import diff, replay
from sdcore.cli.rerun import rerun
from sdcore.cli.resume import resume
from sdcore.cli.sample import sample
from sdcore.cli.schedulers import schedulers
from sdcore.cli.serve import serve
from sdcore.cli.sweep import sweep
from sdcore.cli.train import train
from sdcore.cli.ui import ui
from sdcore.errors import InputError

_CHOSEN = "sdcore.cli.chosen"  # of the context: the defaults that count


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
        try:
            with _heard():
                return super().invoke(ctx)
        except InputError as error:
            where = origins(str(error), ctx.meta.get(_CHOSEN, {}))
            error.args = (f"{error} ({where})",) if where else error.args
            raise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Before a command reads its arguments: the defaults of its options."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None and takes_defaults(name, command):
            try:
                said = ctx.meta[ASKED] = asked(ctx, command, rest)
            except click.UsageError:  # is told when the command reads them
                return name, command, rest
            if not said.helps:
                given = [*said.given]
                chosen = defaults_of(name, self.commands, said.files, said.presets, given)
                ctx.meta[_CHOSEN] = {k: each for k, each in chosen.items() if k not in given}
                ctx.default_map = {name: {key: each.raw for key, each in chosen.items()}}
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in _COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(str(each.name), line) for each, line in commands.items()])


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)
@click.version_option(__version__, prog_name="sdcore")
def cli(**which: Any) -> None:
    """Draw pictures with Stable Diffusion, and see how."""


cli.params += config_options(expose_value=True)


_COMMANDS: Mapping[str, Mapping[click.Command, str]] = {
    "Drawing": {
        sample: "Pictures from prompts, or from a picture and a prompt.",
        rerun: "A picture once more, from the settings inside it.",
        resume: "Go on with a run that was stopped.",
        invert: "From a picture up to the noise that it is drawn from.",
        serve: "Pictures over HTTP.",
        ui: "A page to draw on, and to study the loop.",
        config: "What an option is unless you say otherwise, and why.",
    },
    "Experiments": {
        compare: "Schedulers side by side, and how far each is from the exact solution.",
        sweep: "A matrix of pictures, each exactly once, by one process or by many.",
        metrics: "How far two sets of pictures are from each other.",
        replay: "What sample --record kept, step by step, without the model.",
        diff: "Where two recorded runs part, or what differs in two pictures.",
    },
    "Solvers and guidances": {
        schedulers: "Every scheduler, and where its steps are.",
        guidances: "Every guidance, and its options.",
        plan: "Every step of a schedule in numbers, here and in other tools.",
        check: "Does a solver keep the laws, and what is its order?",
        lab: "Measure solvers where the answer is known.",
        likelihood: "How likely a picture is to the model.",
    },
    "Training": {
        train: "A LoRA, a word or a whole model learns from pictures.",
    },
    "Models and files": {
        inspect: "What is in a file, a folder or a picture.",
        convert: "Write a model in another layout, with LoRAs merged in.",
        merge: "Mix two models, or add what sets a third one apart.",
        lora: "A LoRA of two models' difference, of another rank, of several.",
        quantize: "A model's weights in fewer bits: GGUF, fp8, int8.",
        download: "Fetch a model, and of it what is read.",
        parity: "A model beside diffusers, component by component.",
        bench: "How fast your model is on your machine.",
    },
}
for commands in _COMMANDS.values():
    for command, line in commands.items():
        command.short_help = line
        if takes_defaults(str(command.name), command):
            there = {spelling for each in command.params for spelling in each.opts}
            more = config_options(hidden=command.name not in SHOWN)
            command.params += [each for each in more if there.isdisjoint(each.opts)]
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
    except click.Abort as error:
        why = error.__cause__
        raise (why if isinstance(why, KeyboardInterrupt) else KeyboardInterrupt()) from None
    except _Unread:
        raise BrokenPipeError from None
