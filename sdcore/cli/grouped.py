"""A command whose options stand under headings in its help."""

from collections.abc import Mapping, Sequence
from typing import Any

import click


class Grouped(click.Command):
    """A command with options of its own, and `groups` of more of them, each under its heading."""

    groups: Mapping[str, Sequence[click.Option]]

    def __init__(
        self, *args: Any, groups: Mapping[str, Sequence[click.Option]], **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.groups = groups
        for options in groups.values():
            self.params.extend(options)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shared = [each for options in self.groups.values() for each in options]
        mine = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        own = [each for each in mine if each not in shared]
        for title, options in {"Options": own, **self.groups}.items():
            lines = [line for each in options if (line := each.get_help_record(ctx)) is not None]
            with formatter.section(title):
                formatter.write_dl(lines)
        with formatter.section("Other spellings, also with _ for -"):
            formatter.write_dl([(e.opts[0], ", ".join(e.opts[1:])) for e in mine if e.opts[1:]
                                and "--help" not in e.opts])  # fmt: skip
