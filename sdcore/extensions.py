"""What installed packages add: solvers, spacings, guidances and noises, by their entry points.

    [project.entry-points."sdcore.solvers"]
    ab2 = "my_package.ab2:solver"

A name that sdcore has itself is looked up there and nowhere else. A package's code is imported when
one of its names is asked for, or all are listed, and never before.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import Any, Literal

from sdcore.errors import InputError
from sdcore.user_file import said

Kind = Literal["solver", "spacing", "guidance", "noise"]
KINDS: Sequence[Kind] = ("solver", "spacing", "guidance", "noise")
GROUPS = {kind: f"sdcore.{kind}s" for kind in KINDS}


@dataclass(frozen=True)
class Extension:
    """One thing that an installed package adds."""

    kind: Kind
    point: EntryPoint

    @property
    def name(self) -> str:
        """What it is called, as the package declares it."""
        return self.point.name

    @property
    def package(self) -> str:
        """Its name and version."""
        of = self.point.dist
        return "an unknown package" if of is None else f"{of.name} {of.version}"

    def load(self) -> Any:
        """The object. Raises InputError, in one line, where its package does not import, and for
        what cannot be called; a solver may be an Entry, too."""
        try:
            thing = self.point.load()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise InputError(
                f"the {self.kind} {self.name} of {self.package} does not import: {said(error)}"
            ) from error
        if self.kind != "solver" and not callable(thing):
            raise InputError(f"the {self.kind} {self.name} of {self.package} is no function")
        return thing

    def file(self) -> Path:
        """Where its code is, for messages; the module's name where that is not known."""
        try:
            return Path(inspect.getfile(inspect.unwrap(self.load())))
        except TypeError:
            return Path(self.point.value)


def extensions(kind: Kind) -> list[Extension]:
    """All of a kind that are installed, by name. Nothing is imported."""
    return [each for each in _all(tuple(sys.path)) if each.kind == kind]


@lru_cache(maxsize=1)
def _all(path: tuple[str, ...]) -> tuple[Extension, ...]:
    """All on this sys.path. It takes 20 ms to look through what is installed."""
    points = entry_points()
    found = [
        Extension(kind, point) for kind in KINDS for point in points.select(group=GROUPS[kind])
    ]
    return tuple(sorted(found, key=lambda each: (each.name, each.package)))


def find(kind: Kind, name: str) -> Extension | None:
    """The one of this name. Raises InputError where two packages have one."""
    same = [each for each in extensions(kind) if plain(each.name) == plain(name)]
    if len({each.package for each in same}) > 1:
        raise InputError(
            f"{kind} {name} is in {' and in '.join(each.package for each in same)}: name its file, "
            "or uninstall one"
        )
    return same[0] if same else None


def names(kind: Kind) -> list[str]:
    """Of all of a kind, for whoever has mistaken one."""
    return [each.name for each in extensions(kind)]


def absent(packages: Iterable[str]) -> list[str]:
    """Those of these, "NAME VERSION", that are not installed in any version."""
    return [each for each in packages if not _is_installed(each.rpartition(" ")[0])]


def _is_installed(name: str) -> bool:
    try:
        return distribution(name) is not None
    except (PackageNotFoundError, ValueError):  # of no name
        return False


def plain(name: str) -> str:
    """Letters and digits alone: case, spaces and underscores do not matter."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
