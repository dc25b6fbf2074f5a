"""`--save-preset NAME`: what the command line says, kept under a name in the file of defaults."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sdcore.cli.defaults import NOT_KEYS, Asked
from sdcore.config_file import ENVIRONMENT, PRESETS, ConfigFile, open_config
from sdcore.errors import InputError
from sdcore.strict_yaml import Scalar, Table
from sdcore.writing import write_whole

ASKED = "sdcore.cli.asked"  # of the context: what the command line said
_OF_ONE_RUN = (*NOT_KEYS, "out", "state", "stop_after", "record")  # of a single run, and not kept
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


def save_preset(ctx: click.Context, name: str) -> Path:
    """Write the options of this command line as a preset, and return the file it is in.

    That is the file of --config or SDCORE_CONFIG, else the user's own; what else is in it stays as
    it is. Raises InputError for a name that is taken or none, and where nothing is to be kept.
    """
    asked: Asked = ctx.meta[ASKED]
    lines = list(_lines(ctx.command, asked.given))
    if _NAME.fullmatch(name) is None:
        raise InputError(f"a preset is named by letters, digits, . _ -, and not {name!r}")
    if not lines:
        raise InputError("--save-preset keeps the options of this command line: give some")
    mine = [file for file in asked.files if file.kind != "project file"]
    if not mine:
        raise InputError(f"no file to save it in: --no-config or an empty {ENVIRONMENT} says so")
    file = mine[-1]
    for each in asked.files:
        if name in each.presets:
            raise InputError(f"the preset {name} is in {each.path} already: take another name")
    text = _with_preset(file, name, lines)
    file.path.parent.mkdir(parents=True, exist_ok=True)
    before = file.path.read_bytes() if file.table is not None else None
    write_whole(file.path, text.encode())
    if {*open_config(file.path, file.kind).presets} != {*file.presets, name}:
        write_whole(file.path, before or b"")
        raise InputError(f"{file.path} is written in a way that cannot be added to: add it by hand")
    return file.path


def _lines(command: click.Command, given: Mapping[str, Any]) -> list[str]:
    """`key: value` of each option, as YAML."""
    lines = []
    for option in command.params:
        if option.name not in given or option.name in _OF_ONE_RUN:
            continue
        if not isinstance(option, click.Option):
            continue
        value = given[option.name]
        texts = [_text(each) for each in (value if isinstance(value, list) else [value])]
        written = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        lines.append(f"{option.opts[0].lstrip('-')}: {written}")
    return lines


def _text(value: Any) -> str:
    """A number or a plain word as it is, anything else in quotes; null would be nothing said."""
    text = "true" if value is True else str(value)
    plain = re.fullmatch(r"[A-Za-z0-9][\w./+-]*", text) and text.lower() != "null"
    return text if plain else json.dumps(text, ensure_ascii=False)


def _with_preset(file: ConfigFile, name: str, lines: list[str]) -> str:
    """The text of the file with one preset more."""
    block = [f"  {name}:", *(f"    {line}" for line in lines)]
    if file.table is None:
        return "\n".join((f"{PRESETS}:", *block, ""))
    old = file.path.read_text("utf-8-sig").splitlines()
    if PRESETS not in file.table.values:
        return "\n".join((*old, *([""] if old else []), f"{PRESETS}:", *block, ""))
    at, there = file.table.lines[PRESETS], file.table.values[PRESETS]
    if isinstance(there, Table) and not there.flow:
        indent = " " * there.column
        block = [f"{indent}{name}:", *(f"{indent}  {line}" for line in lines)]
    elif not (isinstance(there, Scalar) and there.text is None):
        raise InputError(f"{file.path}, line {at}: presets in braces: add the preset by hand")
    return "\n".join((*old[:at], *block, *old[at:], ""))
