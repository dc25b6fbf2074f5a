"""Where pictures go: `--out` as a file or a folder, and names that overwrite nothing."""

import os
import re
import tempfile
from pathlib import Path

from sdcore.errors import InputError
from sdcore.settings import Settings

_OTHER_PICTURES = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


class Output:
    """The paths of one command's files."""

    def __init__(self, out: str, pictures: int) -> None:
        """Looks, and creates nothing. Raises InputError for what cannot be written."""
        path = Path(out).expanduser()
        suffix = path.suffix.lower()
        if suffix in _OTHER_PICTURES:
            raise InputError(f"pictures are written as PNG: --out {path.with_suffix('.png')}")
        is_file = suffix == ".png" and not path.is_dir()
        if is_file and pictures > 1:
            raise InputError(f"--out {path} is one file for {pictures} pictures: give a folder")
        self.file = path if is_file else None
        self.folder = path.parent if is_file else path
        self._taken: set[Path] = set()
        # The part of the path that is there already decides whether the rest can be made.
        there = self.folder
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise InputError(f"cannot write to {path}: {there} is no folder that can be written")

    def open(self) -> None:
        """Make the folder, and try it. Raises InputError when nothing can be written there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise InputError(f"cannot write to {self.folder}: {error.strerror}") from None

    def picture(self, settings: Settings) -> Path:
        """The path of a picture: the named file, else words and seed in the folder."""
        if self.file is not None:
            return self.file
        words = re.sub(r"[\W_]+", "-", settings.prompt.lower())[:48].strip("-") or "picture"
        return self._free(f"{words}-{settings.seed}")

    def sheet(self, kind: str) -> Path:
        """The path of a sheet: 'sheet.png' in the folder, 'name-sheet.png' beside a named file."""
        return self._free(kind if self.file is None else f"{self.file.stem}-{kind}")

    def _free(self, stem: str) -> Path:
        """`stem`.png, or with -2, -3 ... where that is taken."""
        path, number = self.folder / f"{stem}.png", 2
        while path in self._taken or path.exists():
            path, number = self.folder / f"{stem}-{number}.png", number + 1
        self._taken.add(path)
        return path
