"""plan.yaml: a matrix under the names of `sample`'s options, with include and exclude."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.echo import tell
from sdcore.cli.jobs import Job, jobs_of
from sdcore.cli.options import choose_seeds, chosen_spacing, drawing_options
from sdcore.cli.prompt_lists import Asked, from_file
from sdcore.errors import InputError, unknown
from sdcore.paths import path_of
from sdcore.picture_options import OPTIONS
from sdcore.strict_json import parse as parse_json
from sdcore.strict_yaml import Items, Node, Scalar, Table, parse

if TYPE_CHECKING:
    from sdcore.experiments.sweep.plan import Picture, Prompt

OWN = ("prompt", "prompts", "matrix", "include", "exclude", "layout", "lora_dir")
_SEEDS = ("--seed", "--count")
_YES, _NO = ("true", "yes", "on"), ("false", "no", "off")
Words = Mapping[str, list[str]]  # by an option as it is typed: it and its values, one word each


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
    table = Table({_key(k): v for k, v in table.values.items()}, table.lines, 1)
    prompts = _prompts(table, file, path.parent)
    shared = {name: value for name, value in table.values.items() if name not in OWN}
    matrix = table.values.get("matrix", Table({}, {}, 1))
    if not isinstance(matrix, Table):
        raise InputError(f"{file}, line {matrix.line}: matrix holds options, a list for each")
    common, several = _given(shared, file), _given(matrix.values, file, many=True)
    for flag in common.keys() & several.keys():
        raise InputError(f"{file}: {flag.lstrip('-')} stands in matrix and outside of it")
    common |= {flag: several.pop(flag) for flag in _SEEDS if flag in several}
    folders = _texts("lora_dir", table.values.get("lora_dir", Items((), 1)), file)

    def jobs_under(words: Words) -> list[Job]:
        asked = [Asked(each.text) for each in prompts]
        return jobs_of(asked, {**_parsed(words, file), "lora_dir": tuple(folders)}, drawn=0)

    jobs = jobs_under({**common, **several})
    for each in _tables(table, "exclude", file):
        jobs = _without(jobs, each, file)
    for each in _tables(table, "include", file):
        jobs += _labelled(jobs_under({**common, **_given(each.values, file)}), each, file)
    if not jobs:
        raise InputError(f"{file} leaves no combination of options")
    layout = table.values.get("layout", Scalar("flat", 1))
    if not isinstance(layout, Scalar):
        raise InputError(f"{file}, line {layout.line}: layout is a word")

    from sdcore.cli.compare import cells_of

    return Plan(laid_out(cells_of(jobs), prompts, str(layout.text)), str(layout.text))


def _key(name: str) -> str:
    """A key of a plan, by whichever hyphen."""
    plain = name.replace("-", "_")
    return plain if plain in OWN else name


def _given(values: Mapping[str, Node], file: str, many: bool = False) -> dict[str, list[str]]:
    """Options and their values as words of the command line. many: several values are to be tried;
    else a list is for options that take several at once."""
    words: dict[str, list[str]] = {}
    for name, value in values.items():
        flag = _option(name, f"{file}, line {value.line}").opts[0]
        words[flag] = [*words.get(flag, ()), *_words(name, flag, value, file, many)]
    return words


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
        texts = _texts(given[0], value, file)
        if not texts:
            raise InputError(f"{file}, line {value.line}: {given[0]} says nothing")
        return [Prompt(text) for text in texts]
    name = next(iter(_texts("prompts", value, file)), "")
    if not name:
        raise InputError(f"{file}, line {value.line}: prompts is a list, or a file of them")
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


def _option(name: str, where: str) -> click.Option:
    """The option of this name, by any of its names. Raises InputError where there is none."""
    plain = name.replace("-", "_")
    by_name = {opt.lstrip("-").replace("-", "_"): option
               for option in drawing_options() for opt in option.opts}  # fmt: skip
    by_name |= {str(option.name): option for option in drawing_options()}
    if plain not in by_name and plain in OWN:
        raise InputError(f"{where}: {name} stands by itself, at the beginning of a line")
    if plain not in by_name:
        known = sorted(each for each in {*by_name, *OWN} if each[1:])
        raise InputError(f"{where}: {unknown('option', name, known)}")
    return by_name[plain]


def _words(name: str, flag: str, value: Node, file: str, many: bool) -> list[str]:
    where = f"{file}, line {value.line}"
    takes_many = any(o.many for n, o in OPTIONS.items() if flag in (f"--{n}", o.flag))
    if takes_many and many:
        raise InputError(
            f"{where}: {name} takes several at once: give it outside of matrix, or in include"
        )
    if isinstance(value, Items) and not (many or takes_many or flag == "--seed"):
        raise InputError(f"{where}: several values of {name} belong into matrix")
    texts = _texts(name, value, file)
    if many and not texts:
        raise InputError(f"{where}: {name} has no values, so matrix has no combination")
    if _is_flag(flag) and all(text.lower() in (*_YES, *_NO) for text in texts):
        return [flag for text in texts if text.lower() in _YES]
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


def _parsed(words: Words, file: str) -> dict[str, Any]:
    """The options as click hands them over."""
    said = [word for each in words.values() for word in each]
    command = click.Command("plan", params=[*drawing_options()], add_help_option=False)
    settings: Any = {"token_normalize_func": lambda name: name.replace("_", "-")}
    try:
        with command.make_context("plan", said, **settings) as made:
            params = dict(made.params)
    except click.ClickException as error:
        raise InputError(f"{file}: {error.format_message()}") from None
    if not params["seed"] and params["count"] is None:
        params["seed"] = ("0",)
    if any(re.match(r"\s*-1\b", str(seed)) for seed in params["seed"]):
        raise InputError(f"{file}: a seed of -1 is another one each time: name the seeds")
    return {"wildcards": None, "wildcard_dir": ".", "models": (), "out": "", **params}


def _without(jobs: Sequence[Job], table: Table, file: str) -> list[Job]:
    """The jobs without the combinations, or without the seeds of these, that a table names.

    Says so where there are none. Raises InputError for a table that names nothing.
    """
    from dataclasses import replace

    words, where = _given(table.values, file), f"{file}, line {table.line}"
    params = _parsed(words, file)
    seeds = choose_seeds(params["seed"], params["count"]) if words.keys() & {*_SEEDS} else None
    wanted = _values(params)
    if not wanted and seeds is None:
        raise InputError(f"{where}: exclude names options with values, or seeds")
    left: list[Job] = []
    for job in jobs:
        kept = job.seeds
        if all(job.chosen.get(name) == value for name, value in wanted.items()):
            kept = () if seeds is None else tuple(seed for seed in job.seeds if seed not in seeds)
        if kept:
            left.append(replace(job, seeds=kept))
    if sum(map(len, left)) == sum(map(len, jobs)):
        tell(f"{where}: nothing is as exclude has it")
    return left


def _values(params: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, by name, each with its one value as a Job has it."""
    single: dict[str, Any] = {}
    for name, given in params.items():
        one = isinstance(given, tuple) and not (name in OPTIONS and OPTIONS[name].many)
        single[name] = next(iter(given[-1:]), None) if one else given
    single["spacing"] = chosen_spacing(single)
    given = {name: single[name] for name in OPTIONS if single.get(name) is not None}
    return {name: value for name, value in given.items() if value is not False and value != ()}


def _labelled(jobs: Sequence[Job], table: Table, file: str) -> list[Job]:
    """The jobs, labelled by what the table says."""
    from dataclasses import replace

    names = list(_values(_parsed(_given(table.values, file), file)))
    return [replace(job, labels={name: _label(job.chosen[name]) for name in names}) for job in jobs]


def _label(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value
