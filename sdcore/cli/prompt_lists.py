"""Prompts from the command line and from a file, each with options of its own.

A line of the file is words, and behind them any options of a picture as on the command line:

    a red house at sunset
    a blue boat --negative "trees, people" --seed 42 --steps 30
    --prompt "a green tree" --negative_prompt people --seed 7 --cfg_scale 5
    {"prompt": "a yellow cat", "negative": "night", "seed": 7, "scheduler": "euler"}

Words that look like options, or that are to keep their outer quotes, are written as JSON. Empty
lines and those that begin with # or // are passed over.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from sdcore.cli.options import drawing_options
from sdcore.errors import InputError
from sdcore.paths import path_of
from sdcore.strict_json import parse

_OPTIONS_BEGIN = re.compile(r"(?:^|\s)(?=--[a-zA-Z]|-[a-zA-Z]\d*(?:\s|$))")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_INFOTEXT = re.compile(r"Negative prompt:|Steps: \d+, Sampler:")


@dataclass(frozen=True)
class Asked:
    """A prompt, and the options that were given for it alone, as click hands them over."""

    prompt: str
    options: Mapping[str, Any] = field(default_factory=dict)


def read_prompts(given: Sequence[str], file: str | None) -> list[Asked]:
    """The prompts of the command line and those of a file ('-': stdin).

    Raises InputError, with the number of the line, for what cannot be read, and where none is left.
    """
    asked = [Asked(prompt) for prompt in given]
    if file is not None:
        asked += from_file(file)
    if not asked:
        raise InputError('no prompt: write one, as in sdcore sample "a red house at sunset"')
    if any("\ud800" <= letter <= "\udfff" for each in asked for letter in each.prompt):
        raise InputError("a prompt is no text: it holds bytes that are not UTF-8")
    return asked


def from_file(file: str) -> list[Asked]:
    """The prompts of a file, in order."""
    try:
        raw = sys.stdin.buffer.read() if file == "-" else path_of(file).read_bytes()
        lines = [line.strip() for line in raw.decode("utf-8-sig").splitlines()]
    except OSError as error:
        raise InputError(f"cannot read prompts from {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"cannot read prompts from {file}: it is no UTF-8 text") from None
    asked: list[Asked] = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith(("#", "//")):
            continue
        try:
            asked += from_line(line)
        except InputError as error:
            raise InputError(f"{file}, line {number}: {error}") from None
        except click.ClickException as error:
            raise InputError(
                f"{file}, line {number}: {error.format_message().rstrip('.')}; words that look "
                'like options are written as JSON: {"prompt": "..."}'
            ) from None
    if not asked:
        raise InputError(f"{file} holds no prompts")
    return asked


def from_line(line: str) -> list[Asked]:
    """The prompts of one line: one, or several where --prompt stands there again."""
    if _INFOTEXT.match(line):
        raise InputError(
            "this belongs to the text that A1111 keeps in a picture: sdcore rerun FILE draws that"
        )
    words, arguments = _json(line) if _is_json(line) else _words(line)
    command = click.Command("prompts", params=[*drawing_options(), _PROMPT], add_help_option=False)
    command.allow_extra_args = False
    context: Any = {"token_normalize_func": lambda name: name.replace("_", "-")}
    with command.make_context("prompts", arguments, **context) as made:
        options = {name: value for name, value in made.params.items() if value not in (None, ())}
    prompts = [*words, *options.pop("prompt_option", ())]
    if not prompts:
        raise InputError("there is no prompt in it")
    return [Asked(prompt, options) for prompt in prompts]


_PROMPT = click.Option(("--prompt", "prompt_option"), multiple=True)


def _words(line: str) -> tuple[list[str], list[str]]:
    """The words of a line, and the arguments behind them."""
    quoted = _QUOTED.match(line)
    if quoted and (quoted.end() == len(line) or _OPTIONS_BEGIN.match(line, quoted.end())):
        words, rest = re.sub(r'\\(["\\])', r"\1", quoted[1]), line[quoted.end() :]
    elif begin := _OPTIONS_BEGIN.search(line):
        words, rest = line[: begin.start()].strip(), line[begin.start() :]
    else:
        return [line], []
    try:
        return [words] * bool(words), shlex.split(rest)
    except ValueError as error:
        raise InputError(f"{str(error).lower()}: {line[:80]!r}") from None


def _is_json(line: str) -> bool:
    return re.match(r'\{\s*"[^"]*"\s*:', line) is not None


def _json(line: str) -> tuple[list[str], list[str]]:
    """The same of {"prompt": "...", "seed": 42}: its names are those of the options."""
    try:
        values, words, arguments = parse(line), [], []
    except InputError as error:
        raise InputError(f"it is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError("no JSON object")
    for name, value in values.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict | list):
                raise InputError(f"{name} holds more than a text or a number")
            if name in ("prompt", "prompts"):
                words.append(str(each))
            elif each is True:
                arguments.append(f"--{name}")
            elif each is not None and each is not False:
                arguments.append(f"--{name}={each}")
    return words, arguments
