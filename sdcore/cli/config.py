"""`sdcore config`: what an option is unless the command line says otherwise, and why."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from sdcore.cli.defaults import SERVERS, Chosen, defaults_of, takes_defaults
from sdcore.cli.echo import echo
from sdcore.config_file import ConfigFile, config_files
from sdcore.errors import InputError, unknown

# What the model decides where nothing is said.
_MODELS_OWN = ("scheduler", "spacing", "steps", "cfg", "width", "height", "eta", "noise",
               "prediction_type")  # fmt: skip
_USUAL = re.compile(r"\[default: (.*)\]$")  # what an option's help says of it


@click.command()
@click.argument("name", metavar="[COMMAND]", default="sample")
@click.option("--config", "config_file", metavar="FILE", help="This file alone.")
@click.option("--no-config", is_flag=True, help="No file.")
@click.option("--preset", metavar="NAME", multiple=True, help="With this preset.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def config(
    ctx: click.Context,
    name: str,
    config_file: str | None,
    no_config: bool,
    preset: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print every option of COMMAND (sample) with its value and where that comes from.

    The later counts: built in, the model's own, your file, sdcore.yaml in this folder, the
    environment (SDCORE_SAMPLE_STEPS=30), a preset, the command line. `rerun` and `resume` take
    what the picture says, and no file.
    """
    group = ctx.parent
    assert group is not None
    assert isinstance(group.command, click.Group)
    commands = group.command.commands
    able = [each for each, command in commands.items() if takes_defaults(each, command)]
    if name in commands and name not in able:
        raise InputError(f"{name} takes no defaults from files")
    if name not in able:
        raise unknown("command", name, able)
    above = group.params
    named = above["config_file"] if config_file is None else config_file
    files = config_files(named, no_config or above["no_config"])
    presets = (*above["preset"], *preset)
    chosen = defaults_of(name, commands, files, presets)
    values = dict(_values(commands[name], chosen))
    if name in SERVERS:
        values["key"] = _key(values["key-file"])
    if as_json:
        told = {
            each: {"value": value, "origin": origin} for each, (value, origin) in values.items()
        }
        places = [{"path": str(file.path), "kind": file.kind, "there": file.table is not None}
                  for file in files]  # fmt: skip
        echo(json.dumps({"command": name, "files": places, "values": told}, indent=2))
        return
    for line in (*_places(files), "", f"sdcore {name}"):
        echo(line)
    wide = [max(len(str(cell)) for cell in column) for column in zip(
        *((each, _shown(value)) for each, (value, _) in values.items()), strict=True)]  # fmt: skip
    for each, (value, origin) in values.items():
        echo(f"  {each:{wide[0]}}  {_shown(value):{min(wide[1], 32)}}  {origin}")


def _values(
    command: click.Command, chosen: Mapping[str, Chosen]
) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Every option by its key: its value, and what it comes from."""
    for option in command.params:
        if not isinstance(option, click.Option) or not option.expose_value or option.hidden:
            continue
        if option.name == "save_preset":
            continue
        name, key = str(option.name), option.opts[0].lstrip("-")
        if name in chosen:
            raw = chosen[name].raw
            one = raw[0] if isinstance(raw, tuple) and len(raw) == 1 else raw
            yield key, (list(one) if isinstance(one, tuple) else one, chosen[name].origin)
            continue
        built_in = option.to_info_dict()["default"]
        if built_in in (None, ()):
            usual = _USUAL.search(option.help or "")
            built_in = None if usual is None else usual[1]
        yield key, (built_in, "the model's own" if name in _MODELS_OWN else "built in")


def _key(file: tuple[Any, str]) -> tuple[Any, str]:
    """Whether a server's requests bring a key, and where that comes from; never the key."""
    from sdcore.server.options import KEY

    if file[0] is not None:
        return "that of the file", file[1]
    return ("set", f"environment {KEY}") if os.environ.get(KEY) else (None, "built in")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _places(files: list[ConfigFile]) -> Iterator[str]:
    """The files that were looked for, and the presets in them."""
    if not files:
        yield "no file is read"
    for file in files:
        presets = f"; presets {', '.join(file.presets)}" if file.presets else ""
        yield f"{file.kind}: {file.path}{'' if file.table else ' (not there)'}{presets}"
