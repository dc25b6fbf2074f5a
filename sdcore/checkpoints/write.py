"""Writing so that a file or a folder is whole, or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sdcore.errors import InputError


def check_target(target: Path) -> None:
    """Raises InputError for a target that is there already, or in no folder that can be written."""
    try:
        there = target.exists()
    except OSError as error:  # a name that is too long
        raise InputError(f"cannot write {target}: {error.strerror}") from None
    if there:
        raise InputError(f"{target} is there already")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {target.parent}: it is no folder that can be written")


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Where to write: a path beside `target`, which gets its name once all is written.

    Raises InputError as `check_target` does, and where the disk is full; nothing is left then.
    """
    check_target(target)
    try:
        with tempfile.TemporaryDirectory(prefix=".sdcore-", dir=target.parent) as beside:
            path = Path(beside) / target.name
            yield path
            os.rename(path, target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from None
    except SafetensorError as error:  # among others an OSError, as text
        raise InputError(f"cannot write {target}: {error}") from None
