"""Writing so that whoever looks sees the old file, the whole new one, or none: never a half.

What is being written lies in a folder of its own beside the target, `.sdcore-` and eight letters,
with a lock in it that its writer holds. Where a writer is killed the system lets go of the lock,
and the next one to write there takes the folder away.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import IO

from safetensors import SafetensorError

from sdcore.errors import InputError
from sdcore.paths import check_folder, path_of

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing taken away
    fcntl = None

PREFIX, LOCK = ".sdcore-", ".sdcore-lock"
_OURS = re.compile(rf"{re.escape(PREFIX)}\w{{8}}")


def check_target(target: Path) -> None:
    """Raises InputError for a target that is there already, or in no folder that can be written."""
    if os.path.lexists(path_of(target)):
        raise InputError(f"{target} is there already")
    check_folder(target.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in place of what is there. Raises InputError; nothing is left behind then."""
    with _beside(path) as new:
        new.write_bytes(data)
        os.replace(new, path)


def write_new(paths: Iterable[Path], data: bytes) -> Path:
    """Write a file under the first of these names that is free, and return it.

    paths: in one folder. A name is taken in one move: of two processes that want the same one, one
    goes on to the next. Raises InputError; nothing is left behind then.
    """
    names = iter(paths)
    first = next(names)
    with _beside(first) as new:
        new.write_bytes(data)
        for path in chain((first,), names):
            if _moved(new, path):
                return path
    raise InputError(f"cannot write {first}: every name like it is taken")


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Where to write a file or a folder, which is given its name once all is written.

    Raises InputError as `check_target` does, and where the disk is full; nothing is left then.
    """
    check_target(target)
    with _beside(target) as path:
        yield path
        _as_umask_says(path)
        if path.is_dir():
            os.rename(path, target)  # refused where a folder that holds something is there now
        elif not _moved(path, target):
            raise InputError(f"{target} is there already")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A path of the same name in a folder of its own beside `target`."""
    try:
        take_away_leftovers(target.parent)
        folder, lock = _locked_folder(target.parent)
        try:
            yield folder / target.name
        finally:
            lock.close()
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from None
    except SafetensorError as error:  # among others an OSError, as text
        raise InputError(f"cannot write {target}: {error}") from None


def _locked_folder(parent: Path) -> tuple[Path, IO[bytes]]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        try:
            lock = (folder / LOCK).open("wb")
        except FileNotFoundError:  # taken for a leftover before it had its lock
            continue
        if _lock(lock) is not Lock.TAKEN and (folder / LOCK).exists():
            return folder, lock
        lock.close()  # taken for a leftover before the lock was ours


class Lock(Enum):
    """Whose the lock of a folder is."""

    OURS, TAKEN, NONE = range(3)  # NONE: this system or this file system has no locks


def _lock(file: IO[bytes]) -> Lock:
    if fcntl is None:
        return Lock.NONE
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Lock.TAKEN
    except OSError:
        return Lock.NONE
    return Lock.OURS


def take_away_leftovers(parent: Path) -> None:
    """Remove what writers that were killed have left in a folder."""
    try:
        with os.scandir(parent) as entries:
            ours = [Path(e) for e in entries if _OURS.fullmatch(e.name) and not e.is_symlink()]
    except OSError:  # it may be written to and not read
        return
    for folder in ours:
        with suppress(OSError):  # not ours to look into, or gone by now
            try:
                with (folder / LOCK).open("r+b") as lock:
                    if _lock(lock) is Lock.OURS:
                        shutil.rmtree(folder, ignore_errors=True)
            except FileNotFoundError:
                folder.rmdir()  # killed before it had its lock: there is nothing in it


def _moved(new: Path, path: Path) -> bool:
    """Give a file its name, unless that is taken: whether it was free."""
    try:
        os.link(new, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without links: the name is taken by an empty file.
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        os.replace(new, path)
    return True


def _as_umask_says(path: Path) -> None:
    """Files as the umask says, whatever the library that wrote them says."""
    mode = (path.parent / LOCK).stat().st_mode & 0o666
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            file.chmod(mode)
