"""The defaults of a command's options: from the files, the environment and the presets.

Built in < the model's own < user file < project file < environment < preset < command line. Every
value goes through its option's own type, and what cannot be is told with its file and line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import click

from sdcore.cli.options import Drawing
from sdcore.config_file import ConfigFile, Value, Values, config_files
from sdcore.errors import InputError, unknown
from sdcore.picture_options import OPTIONS, Source
from sdcore.written import names_a_file

# What takes everything from a file that was drawn before, and no defaults; groups take none either.
WITHOUT = ("rerun", "resume", "replay", "diff", "config")
SHOWN = ("sample", "serve", "ui", "train", "sweep")  # whose help names the options below
NOT_KEYS = ("config_file", "no_config", "preset", "save_preset", "help", "version")
# Of these one alone may be given: a stronger layer's drops a weaker layer's.
ALTERNATIVES = (("spacing", "sigmas", "timesteps"), ("strength", "start_sigma", "start_step"))
SERVERS = ("serve", "ui")  # a file that lies there does not say who may reach this machine
# Of an environment variable that holds several values, what is between them; others hold one.
_BETWEEN = {"models": os.pathsep, "lora_dir": os.pathsep, "embedding_dir": os.pathsep,
            "cors": None, "host_allowed": None}  # fmt: skip
_SIZE = "resolution"  # 512 or 768x512: width and height at once
_WORDS = ("negative", "more", "prompt")  # in which anything may stand


@dataclass(frozen=True)
class Chosen:
    """A default, as the option's own type reads it, and where it comes from."""

    raw: str | tuple[str, ...]
    origin: str


def config_options(hidden: bool = False, expose_value: bool = False) -> list[click.Option]:
    """What says which files and presets count."""
    more: Any = {"expose_value": expose_value, "hidden": hidden}
    return [
        click.Option(
            ["--config", "config_file"], metavar="FILE",
            help="Defaults from this file alone.  [default: your own, and ./sdcore.yaml]", **more,
        ),
        click.Option(["--no-config"], is_flag=True, help="No defaults from files.", **more),
        click.Option(
            ["--preset"], metavar="NAME", multiple=True, help="A preset of these files.", **more
        ),
    ]  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What a command line says, before its defaults are looked for."""

    given: Mapping[str, Any]  # parameter -> what is written behind it
    files: tuple[ConfigFile, ...] = ()
    presets: tuple[str, ...] = ()
    helps: bool = False  # whether it asks for help alone


def asked(group: click.Context, command: click.Command, args: Sequence[str]) -> Asked:
    """What the command line names, and the files that count for it.

    Raises InputError for a file that cannot be read, and click's error for what cannot be parsed.
    """
    context = click.Context(command, parent=group, info_name=command.name)
    given, _, _ = command.make_parser(context).parse_args(list(args))
    help_option = command.get_help_option(context)
    if help_option is not None and help_option.name in given:
        return Asked(given, helps=True)
    above = group.params
    named = given.get("config_file", above["config_file"])
    none = bool(given.get("no_config", above["no_config"]))
    presets = (*above["preset"], *given.get("preset", ()))
    return Asked(given, tuple(config_files(named, none)), presets)


def takes_defaults(name: str, command: click.Command) -> bool:
    return name not in WITHOUT and not isinstance(command, click.Group)


def defaults_of(
    name: str,
    commands: Mapping[str, click.Command],
    files: Sequence[ConfigFile],
    presets: Sequence[str] = (),
    given: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> dict[str, Chosen]:
    """The defaults of one command, by the names of its parameters.

    commands: all there are, so that a key of any is known. files: the weakest first. given: the
    parameters that the command line names: they win, also over an alternative to them.

    Raises InputError for whatever in the files is not known, or is no value of its option.
    """
    for file in files:
        _check_keys(file, commands)
    layers: list[Values] = []
    for file in files:
        layers += [_shared(file.everywhere, name, commands[name]), file.sections.get(name, {})]
    layers.append(_of_environment(name, commands[name], environment))
    layers += [_preset(preset, files) for preset in presets]
    command = commands[name]
    known, chosen = _keys(command), {}
    with click.Context(command, info_name=name) as context:
        for layer in layers:
            fresh = _of_layer(layer, name, known, context)
            for other in (other for key in fresh for other in _alternatives(key)):
                chosen.pop(other, None)
            chosen |= fresh
            chosen = {key: value for key, value in chosen.items() if value is not None}
    for key in given:
        for other in _alternatives(key):
            chosen.pop(other, None)
    starts = any(option.name == "image" for option in known.values())
    if starts and "image" not in given and "image" not in chosen:
        for key in [*chosen]:  # what says how one starts from a picture, without any
            if key in OPTIONS and "image" in OPTIONS[key].goes_with:
                del chosen[key]
    return chosen


def origins(line: str, chosen: Mapping[str, Chosen]) -> str:
    """Where the defaults come from that a refusal speaks of by name; "" where it does of none.

    >>> origins("steps 0 is out of range", {"steps": Chosen("0", "sdcore.yaml, line 3")})
    'steps: sdcore.yaml, line 3'
    """
    told = []
    for name, each in chosen.items():
        spelt = re.escape(name).replace("_", "[-_ ]")
        if re.search(rf"(?<![\w.]){spelt}(?![\w.])", line) and each.origin not in line:
            told.append(f"{name}: {each.origin}")
    return "; ".join(told)


def _shared(values: Values, name: str, command: click.Command) -> Values:
    """Of what is said for all commands, what means the same to this one.

    To one that draws, all of it; to others what names a model and how it draws: --out of `invert`
    is no folder of pictures. A training has steps, sizes and schedules of its own.
    """
    if isinstance(command, Drawing):
        return values
    meant = {each.name for each in fields(Source)} if name == "train" else {*OPTIONS, _SIZE}
    known = _keys(command)
    names = {key: known[_plain(key)].name if _plain(key) in known else key for key in values}
    return {key: value for key, value in values.items() if names[key] in meant}


def _of_layer(
    layer: Values, name: str, known: Mapping[str, click.Option], context: click.Context
) -> dict[str, Chosen | None]:
    """What one layer says of the command's options; None for null: as if no weaker one had."""
    fresh: dict[str, Chosen | None] = {}
    for value in _spread(layer.values(), known):
        option = known.get(_plain(value.key))
        if option is None:  # of another command
            continue
        _check_trust(value, name, option)
        raw = None if value.is_null else _checked(value, option, context)
        fresh[str(option.name)] = None if raw is None else Chosen(raw, value.origin)
    return fresh


def _keys(command: click.Command) -> dict[str, click.Option]:
    """The options of a command by every spelling, without dashes in front."""
    return {
        spelling.lstrip("-"): option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in NOT_KEYS
        for spelling in (*option.opts, *option.secondary_opts)
        if spelling.startswith("--")
    }


def _plain(key: str) -> str:
    return key.replace("_", "-")


def _check_keys(file: ConfigFile, commands: Mapping[str, click.Command]) -> None:
    """Raises InputError for a command or an option that there is not, and for one named twice."""
    known = {n: _keys(c) for n, c in commands.items() if takes_defaults(n, c)}
    every = {key: option for keys in known.values() for key, option in keys.items()}
    for name, section in file.sections.items():
        line = 0 if file.table is None else file.table.lines[name]
        if name in commands and name not in known:
            raise InputError(f"{file.path}, line {line}: {name} takes no defaults from a file")
        if name not in known:
            wrong = unknown("command or key", name, [*known, "defaults", "presets", *every], known)
            raise InputError(f"{file.path}, line {line}: {wrong}")
        _check_section(section, known[name], f"option of {name}")
    for section in (file.everywhere, *file.presets.values()):
        _check_section(section, every, "option")


def _check_section(section: Values, known: Mapping[str, Any], what: str) -> None:
    meant: dict[Any, Value] = {}
    for key, value in section.items():
        plain = _plain(key)
        if plain not in known and not (plain == _SIZE and "width" in known):
            raise InputError(f"{value.origin}: {unknown(what, key, [*known, _SIZE], [*known][:8])}")
        same = _SIZE if plain not in known else known[plain].name
        if same in meant:
            other = meant[same]
            raise InputError(f"{value.origin}: {key} is {other.key} of {other.origin} once more")
        meant[same] = value


def _spread(values: Any, known: Mapping[str, Any]) -> Iterator[Value]:
    """Every value; of a resolution the width and the height."""
    for value in values:
        if _plain(value.key) != _SIZE or _SIZE in known:
            yield value
            continue
        texts = value.texts
        if texts is not None and not value.listed:
            texts = tuple(texts[0].lower().replace(" ", "").split("x"))
            texts = texts * 2 if len(texts) == 1 else texts
        if texts is not None and len(texts) != 2:
            raise InputError(f"{value.origin}: {value.key} is written like 512 or 768x512")
        for n, side in enumerate(("width", "height")):
            one = None if texts is None else (texts[n],)
            yield replace(value, key=side, texts=one, listed=False)


def _alternatives(key: str) -> list[str]:
    return [other for group in ALTERNATIVES if key in group for other in group if other != key]


def _checked(value: Value, option: click.Option, context: click.Context) -> str | tuple[str, ...]:
    """The texts as click wants them, once they are found to be of the option's type."""
    texts = value.texts or ()
    if value.listed and not option.multiple:
        raise InputError(f"{value.origin}: {value.key} takes one value, and no list")
    raw = texts if option.multiple else "".join(texts)
    try:
        read = option.type_cast_value(context, raw)
        if option.callback is not None:
            option.callback(context, option, read)
    except click.ClickException as error:
        why = error.message.rstrip(".")
    except InputError as error:
        why = str(error)
    else:
        return raw
    raise InputError(f"{value.origin}: {value.key}: {why}")


def _check_trust(value: Value, command: str, option: click.Option) -> None:
    """Raises InputError for what a file may not say that only lies in the folder one works in."""
    if not value.project or value.texts is None:
        return
    name = str(option.name)
    yourself = "on the command line or in your own file (sdcore config names it)"
    if command in SERVERS and name not in OPTIONS:
        raise InputError(
            f"{value.origin}: {value.key} says how others reach this machine: say it {yourself}"
        )
    if name in _WORDS:
        return
    for text in value.texts:
        if names_a_file(text):
            raise InputError(
                f"{value.origin}: {value.key} names a file of code, {text!r}: it is run only "
                f"where you name it yourself, {yourself}"
            )
    from sdcore.trust import check_inherited

    check_inherited({name: value.texts}, value.origin)


def _of_environment(
    name: str, command: click.Command, environment: Mapping[str, str]
) -> dict[str, Value]:
    """SDCORE_SAMPLE_STEPS=30 and its like. Raises InputError for one that names no option."""
    prefix = f"SDCORE_{name.upper().replace('-', '_')}_"
    known, values = _keys(command), {}
    for variable, text in environment.items():
        if not variable.startswith(prefix):
            continue
        key = variable.removeprefix(prefix).lower().replace("_", "-")
        if key not in known:
            spelt = {option: prefix + option.upper().replace("-", "_") for option in known}
            raise unknown("environment variable", variable, spelt.values(), [prefix + "..."])
        parameter = str(known[key].name)
        several = parameter in _BETWEEN and known[key].multiple
        texts = text.split(_BETWEEN[parameter]) if several else [text]
        values[key] = Value(key, tuple(texts), several, f"environment {variable}")
    return values


def _preset(name: str, files: Sequence[ConfigFile]) -> Values:
    """A preset: of two files that have it, the stronger one's as a whole."""
    there = {each: preset for file in files for each, preset in file.presets.items()}
    if name not in there:
        where = ", ".join(str(file.path) for file in files) or "no file"
        raise InputError(f"{unknown('preset', name, there)} ({where})")
    return {k: replace(v, origin=f"preset {name} ({v.origin})") for k, v in there[name].items()}
