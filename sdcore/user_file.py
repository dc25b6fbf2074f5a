"""A Python file of the user's: what is in it, by name, and which file it was.

A solver, a spacing, a noise or a guidance of one's own comes from such a file. It is executed, so
only a file that the user names is ever loaded: never one that a picture names.
"""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sdcore.errors import InputError
from sdcore.paths import path_of
from sdcore.written import parse

_WORDS = 300  # letters of an exception that are repeated


def load_object(path: str | Path, names: Sequence[str], kind: str) -> Any:
    """The first of these names that the file has: a function, a class or whatever can be called.

    kind: what it is to be, for messages ("solver"). Raises InputError where there is no such file,
    it does not run, or it has none of the names.
    """
    path = path_of(path)
    if not path.is_file():
        raise InputError(f"no {kind} file {str(path)!r}")
    name = f"_user_{path.stem}_{digest(path)[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise InputError(f"{path.name} does not run: {said(error)}") from error
    for wanted in names:
        if callable(thing := getattr(module, wanted, None)):
            return thing
    raise InputError(f"{path.name} has no {kind} named {' or '.join(names)}")


def digest(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hex. Raises InputError where it cannot be read."""
    try:
        return hashlib.sha256(path_of(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error


def digests(texts: Iterable[str | None]) -> dict[str, str]:
    """The digest of every file that these written forms name, by its path as it is written."""
    named = [parse(text).file for text in texts if text]
    return {path: digest(path) for path in named if path is not None}


def difference(path: str | Path, known: str) -> str | None:
    """What became of a file whose digest was `known`: a line, or None where it is as it was."""
    path = path_of(path)
    if not path.is_file():
        return f"{path.name} is gone; the picture was drawn with a file whose SHA-256 is {known}"
    if digest(path) != known:
        return f"{path.name} has changed since the picture was drawn (SHA-256 then {known[:12]})"
    return None


def blame(error: BaseException, path: str | Path, kind: str) -> InputError:
    """The exception as one line that names the file, and the last of its lines that led there."""
    path = Path(path)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [each.lineno for each in frames if Path(each.filename).resolve() == path.resolve()]
    where = f"{path.name}, line {lines[-1]}" if lines else f"the {kind} of {path.name}"
    return InputError(f"{where}: {said(error)}")


def said(error: BaseException) -> str:
    """The type and the words of an exception, on one line of bounded length."""
    try:
        words = " ".join(str(error)[: 10 * _WORDS].split())
    except Exception:
        words = "(its message cannot be made)"
    words = words if len(words) <= _WORDS else f"{words[: _WORDS - 3]}..."
    if isinstance(error, InputError):
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
