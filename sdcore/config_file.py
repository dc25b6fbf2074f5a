"""The files of defaults: which there are, and what they say, unread as to its types.

    model: picturebook             # for every command that has such an option
    steps: 30
    sample:                        # for one command
      scheduler: dpmpp_2m
    presets:
      draft: {steps: 8, scheduler: unipc}

A library never reads them; the commands do, each at its start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdcore.errors import InputError
from sdcore.paths import home, path_of
from sdcore.strict_yaml import Items, Node, Scalar, Table, parse

ENVIRONMENT = "SDCORE_CONFIG"  # a file in place of both; empty: none is read
PROJECT = "sdcore.yaml"  # in the folder where the command is run
EVERYWHERE, PRESETS = "defaults", "presets"  # `defaults:` is where keys may also stand


@dataclass(frozen=True)
class Value:
    """What stands behind a key. texts: None for null; several where it is a list."""

    key: str
    texts: tuple[str, ...] | None
    listed: bool
    origin: str  # a file and a line
    project: bool = False  # from a file that was not named, but lay there

    @property
    def is_null(self) -> bool:
        return self.texts is None


Values = Mapping[str, Value]


@dataclass(frozen=True)
class ConfigFile:
    """One file."""

    path: Path
    kind: str  # "user file", "project file", "file"
    everywhere: Values = field(default_factory=dict)
    sections: Mapping[str, Values] = field(default_factory=dict)  # by command
    presets: Mapping[str, Values] = field(default_factory=dict)
    table: Table | None = None  # None: it is not there


def user_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a user's own file is."""
    if sys.platform == "darwin":
        base = home() / "Library" / "Application Support"
    elif os.name == "nt":
        base = Path(environment.get("APPDATA") or home() / "AppData" / "Roaming")
    else:
        base = Path(environment.get("XDG_CONFIG_HOME") or home() / ".config")
    return base / "sdcore" / "config.yaml"


def config_files(
    named: str | None = None, none: bool = False, environment: Mapping[str, str] = os.environ
) -> list[ConfigFile]:
    """The files that count, the weakest first: the user's and the project's, or the one named.

    none: read none. Raises InputError for a file that is named and not there, and for one that
    cannot be read.
    """
    said = environment.get(ENVIRONMENT) if named is None else named
    if none and named is not None:
        raise InputError("--config names a file and --no-config wants none: give one")
    if none or said == "":
        return []
    if said is not None:
        return [open_config(path_of(said), "file")]
    return [open_config(user_file(environment), "user file"),
            open_config(Path(PROJECT), "project file")]  # fmt: skip


def open_config(path: Path, kind: str) -> ConfigFile:
    """What a file says. Raises InputError."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        if kind == "file":
            raise InputError(f"there is no configuration file {path}") from None
        return ConfigFile(path, kind)
    except UnicodeDecodeError:
        raise InputError(f"{path} is no UTF-8 text") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    table = parse(text, str(path))
    project = kind == "project file"
    everywhere: dict[str, Value] = {}
    sections: dict[str, Values] = {}
    presets: dict[str, Values] = {}
    for key, node in table.values.items():
        where = f"{path}, line {table.lines[key]}"
        inner = Table({}, {}, 0) if node == Scalar(None, node.line) else node
        if key == PRESETS:
            for name, preset in _table(inner, where).values.items():
                presets[name] = _values(preset, str(path), project)
        elif key == EVERYWHERE:
            _add(everywhere, _values(inner, str(path), project))
        elif isinstance(node, Table):
            sections[key] = _values(node, str(path), project)
        else:
            _add(everywhere, {key: _value(key, node, where, project)})
    return ConfigFile(path, kind, everywhere, sections, presets, table)


def _add(values: dict[str, Value], more: Values) -> None:
    for key, value in more.items():
        if key in values:
            raise InputError(f"{value.origin}: {key} also stands at {values[key].origin}")
        values[key] = value


def _table(node: Node, where: str) -> Table:
    if not isinstance(node, Table):
        raise InputError(f"{where}: keys and values belong here, as   steps: 30")
    return node


def _values(node: Node, path: str, project: bool) -> Values:
    table = _table(node, f"{path}, line {node.line}")
    return {
        key: _value(key, value, f"{path}, line {table.lines[key]}", project)
        for key, value in table.values.items()
    }


def _value(key: str, node: Node, where: str, project: bool) -> Value:
    if isinstance(node, Scalar):
        return Value(key, None if node.text is None else (node.text,), False, where, project)
    if isinstance(node, Items):
        texts = [each.text for each in node.items if isinstance(each, Scalar) and each.text]
        if len(texts) < len(node.items):
            raise InputError(f"{where}: {key} is a list of more than texts and numbers")
        return Value(key, tuple(texts), True, where, project)
    raise InputError(f"{where}: {key} is a value, and no table of keys")
