"""plan.yaml: a matrix under the names of `sample`'s options, with include and exclude."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.jobs import Job, jobs_of
from sdcore.cli.options import drawing_options
from sdcore.cli.prompt_lists import Asked, from_file
from sdcore.errors import InputError, unknown
from sdcore.paths import path_of
from sdcore.picture_options import OPTIONS
from sdcore.strict_json import parse as parse_json
from sdcore.strict_yaml import Items, Node, Scalar, Table, parse

if TYPE_CHECKING:
    from sdcore.experiments.sweep.plan import Picture, Prompt

OWN = ("prompt", "prompts", "matrix", "include", "exclude", "layout")
_NAMES = {name: name for name in OPTIONS}


@dataclass(frozen=True)
class Plan:
    """A plan as it was read."""

    pictures: list[Picture]
    layout: str


def read_plan(file: str) -> Plan:
    """The cells of a plan, each with its path.

    Raises InputError, with the line where there is one, for what is no plan or names no option.
    """
    from sdcore.experiments.sweep.plan import laid_out

    path = path_of(file)
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is no UTF-8 text") from None
    table = parse(text, file)
    for name in table.values:
        if name not in OWN:
            _flag(name, f"{file}, line {table.lines[name]}")
    prompts = _prompts(table, file, path.parent)
    common = [word for name, value in table.values.items() if name not in OWN
              for word in _words(name, value, file, many=False)]  # fmt: skip
    matrix = table.values.get("matrix", Table({}, {}, 1))
    if not isinstance(matrix, Table):
        raise InputError(f"{file}, line {matrix.line}: matrix holds options, a list for each")
    several = [word for name, value in matrix.values.items()
               for word in _words(name, value, file, many=True)]  # fmt: skip
    asked = [Asked(each.text) for each in prompts]
    excluded = [_options(each, file) for each in _tables(table, "exclude", file)]
    jobs = [
        job for job in jobs_of(asked, _parsed([*common, *several], file), drawn=0)
        if not any(_matches(job, each) for each in excluded)
    ]  # fmt: skip
    for each in _tables(table, "include", file):
        words = [word for name, value in each.values.items()
                 for word in _words(name, value, file, many=False)]  # fmt: skip
        jobs += _labelled(jobs_of(asked, _parsed([*common, *words], file), drawn=0), each)
    if not jobs:
        raise InputError(f"{file} leaves no combination of options")
    layout = table.values.get("layout", Scalar("flat", 1))
    if not isinstance(layout, Scalar):
        raise InputError(f"{file}, line {layout.line}: layout is a word")

    from sdcore.cli.compare import cells_of

    return Plan(laid_out(cells_of(jobs), prompts, str(layout.text)), str(layout.text))


def _prompts(table: Table, file: str, folder: Path) -> list[Prompt]:
    """The prompts of `prompt` or `prompts`: texts, or the name of a .txt or .jsonl file."""
    from sdcore.experiments.sweep.plan import Prompt

    given = [name for name in ("prompt", "prompts") if name in table.values]
    if len(given) != 1:
        raise InputError(
            f"{file}: give prompt, or prompts, and not {' and '.join(given) or 'none'}"
        )
    value = table.values[given[0]]
    if isinstance(value, Items) or given == ["prompt"]:
        return [Prompt(text) for text in _texts(given[0], value, file)]
    (name,) = _texts("prompts", value, file)
    place = path_of(name)
    place = place if place.is_absolute() else folder / place
    if place.suffix.lower() == ".jsonl":
        return _with_metadata(place)
    asked = from_file(str(place))
    if any(each.options for each in asked):
        raise InputError(
            f"{place} gives prompts options of their own: a plan has one matrix for all"
        )
    return [Prompt(each.prompt) for each in asked]


def _with_metadata(path: Path) -> list[Prompt]:
    """A JSON object a line: "prompt", and whatever else is carried along."""
    from sdcore.experiments.sweep.plan import Prompt

    prompts = []
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                value = parse_json(line)
                text = value.pop("prompt")
            except (InputError, AttributeError, KeyError):
                raise InputError(f'{path}, line {number}: no JSON object with a "prompt"') from None
            if not isinstance(text, str):
                raise InputError(f"{path}, line {number}: its prompt is no text")
            prompts.append(Prompt(text, value))
    if not prompts:
        raise InputError(f"{path} holds no prompts")
    return prompts


def _flag(name: str, where: str) -> str:
    """The option of this name as it is typed. Raises InputError where there is none."""
    plain = name.replace("-", "_")
    flags = {option.name: option.opts[0] for option in drawing_options()}
    also = {opt.lstrip("-").replace("-", "_"): option.opts[0]
            for option in drawing_options() for opt in option.opts}  # fmt: skip
    flag = flags.get(plain) or also.get(plain)
    if flag is None:
        raise InputError(f"{where}: {unknown('option', name, sorted({*flags, *also, *OWN}))}")
    return flag


def _words(name: str, value: Node, file: str, many: bool) -> list[str]:
    """An option and its values as the command line has them.

    many: whether a list is several values to try; else it is for options that take several.
    """
    flag = _flag(name, f"{file}, line {value.line}")
    takes_many = any(o.many for n, o in OPTIONS.items() if flag in (f"--{n}", o.flag))
    if takes_many and many:
        raise InputError(
            f"{file}, line {value.line}: {name} takes several at once: give it outside of matrix, "
            "or in include"
        )
    if isinstance(value, Items) and not many and not takes_many:
        raise InputError(f"{file}, line {value.line}: several values of {name} belong into matrix")
    texts = _texts(name, value, file)
    if texts and all(text.lower() in ("true", "yes", "on") for text in texts) and _is_flag(flag):
        return [flag]
    return [f"{flag}={text}" for text in texts]


def _is_flag(flag: str) -> bool:
    return any(isinstance(option, click.Option) and option.is_flag and flag in option.opts
               for option in drawing_options())  # fmt: skip


def _texts(name: str, value: Node, file: str) -> list[str]:
    items = value.items if isinstance(value, Items) else (value,)
    for each in items:
        if not isinstance(each, Scalar):
            raise InputError(f"{file}, line {each.line}: {name} is a value, or a list of values")
    return [each.text for each in items if isinstance(each, Scalar) and each.text is not None]


def _tables(table: Table, name: str, file: str) -> Sequence[Table]:
    value = table.values.get(name)
    if value is None:
        return ()
    items = value.items if isinstance(value, Items) else (value,)
    if not all(isinstance(each, Table) for each in items):
        raise InputError(f"{file}, line {value.line}: {name} is a list of options with values")
    return [each for each in items if isinstance(each, Table)]


def _parsed(words: Sequence[str], file: str) -> dict[str, Any]:
    """The options as click hands them over."""
    command = click.Command("plan", params=[*drawing_options()], add_help_option=False)
    settings: Any = {"token_normalize_func": lambda name: name.replace("_", "-")}
    try:
        with command.make_context("plan", list(words), **settings) as made:
            params = dict(made.params)
    except click.ClickException as error:
        raise InputError(f"{file}: {error.format_message()}") from None
    if not params["seed"] and params["count"] is None:
        params["seed"] = ("0",)
    if any(re.match(r"\s*-1\b", str(seed)) for seed in params["seed"]):
        raise InputError(f"{file}: a seed of -1 is another one each time: name the seeds")
    common = {"wildcards": None, "wildcard_dir": ".", "models": (), "lora_dir": (), "out": ""}
    return {**common, **params}


def _options(table: Table, file: str) -> Mapping[str, Any]:
    """Options by name, each with its one value in its type."""
    words = [word for name, value in table.values.items()
             for word in _words(name, value, file, many=False)]  # fmt: skip
    params = _parsed(words, file)
    return {name: given[-1] for name, given in params.items()
            if name in OPTIONS and given not in (None, ())}  # fmt: skip


def _matches(job: Job, options: Mapping[str, Any]) -> bool:
    return all(job.chosen.get(name) == value for name, value in options.items())


def _labelled(jobs: Sequence[Job], table: Table) -> list[Job]:
    from dataclasses import replace

    names = [name.replace("-", "_") for name in table.values]
    return [replace(job, labels={name: job.chosen.get(name) for name in names}) for job in jobs]
