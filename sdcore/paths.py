"""A user's text as a path: looked up once, so that whoever asks about it later is not surprised."""

import os
from pathlib import Path

from sdcore.errors import InputError

NAME_BYTES = 255  # of a file's or a folder's name: the limit of every common file system


def path_of(place: str | os.PathLike[str]) -> Path:
    """The path that a user names, with ~ expanded; whether something is there is another matter.

    Raises InputError for what is no path, and for one that the system cannot look up: a user that
    is not known, a name that is too long, a folder that may not be looked into.
    """
    try:
        path = Path(place).expanduser()
    except TypeError:
        raise InputError(f"a path is a text or a Path, and no {type(place).__name__}") from None
    except RuntimeError:
        raise InputError(f"{place}: there is no such user's home") from None
    try:
        if any(len(os.fsencode(name)) > NAME_BYTES for name in path.parts):
            raise InputError(f"cannot look at {place}: a name in it is too long")
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise InputError(f"cannot look at {place}: {error.strerror}") from None
    except InputError:
        raise
    except ValueError:  # a zero byte
        raise InputError(f"{str(place)!r} is no path") from None
    return path


def home() -> Path:
    """The user's; "/" where the system knows none, as containers say to a user without a name."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def file_of(place: str | os.PathLike[str]) -> Path:
    """The path of a file that is there. Raises InputError where it is not, as `path_of` does."""
    path = path_of(place)
    if not path.is_file():
        raise InputError(f"{path} is {'no file' if path.exists() else 'missing'}")
    return path


def is_picture(path: Path) -> bool:
    """Whether a file begins as PNG, JPEG or WebP do, whatever it is called."""
    try:
        with path.open("rb") as file:
            return file.read(4).startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF"))
    except OSError:
        return False


def check_folder(folder: Path) -> None:
    """Raises InputError for a folder that is not there, or in which nothing can be written."""
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: it is no folder that can be written")
