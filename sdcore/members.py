"""What the files of a package declare, so that a new file is all that a new member takes."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Any


def declared(package: str, name: str) -> Iterator[Any]:
    """The value of `name` in each module of a package that has it, by the modules' names."""
    files = pkgutil.iter_modules(import_module(package).__path__)
    for file in sorted(info.name for info in files):
        value = vars(import_module(f"{package}.{file}")).get(name)
        if value is not None:
            yield value
