"""What installed packages add, as a list: each with where it comes from, and what is wrong."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from sdcore.brownian import NOISES
from sdcore.errors import InputError
from sdcore.extensions import KINDS, Extension, Kind, extensions, plain
from sdcore.extensions import find as find_extension
from sdcore.guidance import GUIDANCES
from sdcore.sampling import Solver
from sdcore.schedulers import SPACINGS, TABLE
from sdcore.schedulers.table import find
from sdcore.written import parse


@dataclass(frozen=True)
class Installed:
    """One name of an installed package."""

    name: str
    kind: Kind
    source: str  # package, version and where in it
    what: str  # the first line of its docstring
    problem: str = ""  # why it cannot be used


@cache
def _ours() -> Mapping[Kind, set[str]]:
    """The names that no package can take."""
    names: Mapping[Kind, Collection[str]] = {
        "solver": [name for entry in TABLE for name in entry.names],
        "spacing": SPACINGS,
        "guidance": GUIDANCES,
        "noise": NOISES,
    }
    return {kind: {plain(name) for name in known} for kind, known in names.items()}


def installed(kind: Kind) -> Iterator[Installed]:
    """All of this kind. Each package is imported; one that fails is told as its problem."""
    ours = _ours()[kind]
    for each in extensions(kind):
        source, what, problem = f"{each.package} ({each.point.value})", "", ""
        hidden = f"{kind} {each.name} of {each.package} is not used: sdcore has its own"
        if plain(each.name) in ours:
            problem = hidden
        else:
            try:
                added = _solver(each.name) if kind == "solver" else each.load()
                lines = (getattr(added, "__doc__", None) or "").strip().splitlines()
                what = lines[0] if lines else ""
                problem = hidden if added is None else ""
            except InputError as error:
                problem = str(error)
        yield Installed(each.name, kind, source, what, problem)


def _solver(name: str) -> Solver | None:
    """A package's; None where ours is called so with a spacing behind it, "DPM++ 2M Karras"."""
    entry, _, _ = find(name)
    return None if entry in TABLE else entry.solver


def named_by(kind: Kind, text: str) -> Extension | None:
    """What of an installed package a written form names; None where it is ours or a file."""
    written = parse(text)
    if written.file is not None or plain(written.name) in _ours()[kind]:
        return None
    return find_extension(kind, written.name)


def names_an_extension(text: str) -> bool:
    """Whether what a package has installed may be meant, wherever it stands in a written form."""
    words = {plain(word) for word in re.split(r"[+:=,]", text)}
    ours = _ours()
    return any(
        plain(each.name) in words - ours[kind]
        for kind in KINDS for each in extensions(kind)
    )  # fmt: skip
