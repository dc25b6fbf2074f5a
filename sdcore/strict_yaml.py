"""YAML that people wrote: every value as it is written, with its line; nothing is guessed.

YAML's own types are traps: 1e-4 is a text, `no` is false, 12:30 is 750, 010 is 8, and of a key that
stands twice the last one counts. Here a value is its text, and whoever knows its type reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from sdcore.errors import InputError

if TYPE_CHECKING:
    from yaml import Node as YamlNode

MAX_LETTERS, MAX_DEPTH = 1 << 20, 8
_NULLS = ("", "~", "null", "Null", "NULL")  # where they stand without quotes


@dataclass(frozen=True)
class Scalar:
    """One value. text: None for null."""

    text: str | None
    line: int  # counted from 1


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True)
class Table:
    """Keys and what belongs to them, in order. lines: of the keys. flow: written in braces."""

    values: dict[str, Node]
    lines: dict[str, int]
    line: int
    column: int = 0  # of its first key
    flow: bool = False


Node: TypeAlias = "Scalar | Items | Table"


def parse(text: str, name: str) -> Table:
    """The table that a file holds; an empty one of an empty file.

    name: of the file, for messages. Raises InputError, with the line, for what is no YAML, a key
    that stands twice, a tag, more than one document, and for a list or a value alone.
    """
    import yaml

    if len(text) > MAX_LETTERS:
        raise InputError(f"{name} has {len(text):,} letters: at most {MAX_LETTERS:,} are read")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f", line {mark.line + 1}"
        raise InputError(f"{name}{where}: it is no YAML: {error.problem or error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{name}: it is no YAML: {error}") from None
    except (ValueError, OverflowError) as error:  # an escape of no letter: "\UFFFFFFFF"
        raise InputError(f"{name}: it is no YAML: {error}") from None
    except RecursionError:
        raise InputError(f"{name}: more than {MAX_DEPTH} levels inside each other") from None
    if node is None:
        return Table({}, {}, 1)
    table = _read(node, name, 0, set())
    if not isinstance(table, Table):
        raise InputError(f"{name} holds no keys: it is written like   steps: 30")
    return table


def _read(node: YamlNode, name: str, depth: int, seen: set[int]) -> Node:
    import yaml

    where = f"{name}, line {node.start_mark.line + 1}"
    line = node.start_mark.line + 1
    if depth > MAX_DEPTH:
        raise InputError(f"{where}: more than {MAX_DEPTH} levels inside each other")
    if id(node) in seen:  # ten aliases to ten aliases to ... are endless
        raise InputError(f"{where} is repeated by an alias, *: write it out")
    seen.add(id(node))
    if not str(node.tag).startswith("tag:yaml.org,2002:") or "python" in str(node.tag):
        raise InputError(f"{where}: the tag {node.tag} is not read")
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= letter <= "\udfff" for letter in node.value):
            raise InputError(f"{where}: half a letter (a surrogate), which nothing can write")
        bare = node.style is None and node.value in _NULLS
        return Scalar(None if bare else node.value, line)
    if isinstance(node, yaml.SequenceNode):
        return Items(tuple(_read(each, name, depth + 1, seen) for each in node.value), line)
    values: dict[str, Node] = {}
    lines: dict[str, int] = {}
    pairs: Any = node.value
    for key, value in pairs:
        at = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{name}, line {at}: a key is a word")
        if key.value in values:
            raise InputError(
                f"{name}, line {at}: {key.value} stands in line {lines[key.value]} too"
            )
        values[key.value], lines[key.value] = _read(value, name, depth + 1, seen), at
    column = pairs[0][0].start_mark.column if pairs else 0
    return Table(values, lines, line, column, bool(getattr(node, "flow_style", False)))
