"""Files of weights in the user's folders, by the names and hashes that other tools write."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from sdcore.checkpoints.find import WEIGHT_SUFFIXES
from sdcore.errors import InputError
from sdcore.paths import path_of

MOST = 100_000  # files that are looked at


def weights_in(folders: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Every file of weights, and its path in its folder without the ending; symlinks too.

    Raises InputError for a folder that is none.
    """
    for folder in map(path_of, folders):
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder")
        files = (Path(root) / name for root, _, names in sorted(os.walk(folder)) for name in names)
        for path in sorted(p for p in islice(files, MOST) if p.suffix.lower() in WEIGHT_SUFFIXES):
            yield path, path.relative_to(folder).with_suffix("").as_posix()


def by_name(name: str, folders: Sequence[str]) -> list[Path]:
    """The files of this name, with or without its ending, or of this path in one of the folders.

    Nothing outside of the folders is ever named.
    """
    wanted = name.replace("\\", "/")
    for ending in WEIGHT_SUFFIXES:
        wanted = wanted.removesuffix(ending)
    return [
        path
        for path, inside in weights_in(folders)
        if wanted.casefold() in (inside.casefold(), path.stem.casefold())
    ]


def model_of(name: str | None, sha: str | None, folders: Sequence[str]) -> tuple[Path, bool] | None:
    """The file that a picture was drawn with, and whether its hash says so; None: it is not here.

    Files of the name are tried first, then all others, which takes reading them.
    """
    named = [] if name is None else by_name(name, folders)
    if sha is None:
        return (named[0], False) if named else None
    others = (path for path, _ in weights_in(folders) if path not in named)
    for path in (*named, *others):
        if short_hash(path, len(sha)) == sha.lower():
            return path, True
    return (named[0], False) if named else None


def short_hash(path: Path, letters: int = 10) -> str:
    """A1111's hash of a file: the first 10 hex digits of its SHA-256.

    Of 8 letters it is the older one, over 64 KB behind the first MB.
    """
    try:
        with path.open("rb") as file:
            if letters == 8:
                file.seek(0x100000)
                return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
            return hashlib.file_digest(file, "sha256").hexdigest()[:letters]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
