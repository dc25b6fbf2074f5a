"""Where pictures go: `--out` as a file or a folder, and names that overwrite nothing."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from sdcore.a1111 import bare
from sdcore.errors import InputError
from sdcore.paths import check_folder, path_of
from sdcore.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

_OTHER_PICTURES = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


class Output:
    """The paths of one command's files."""

    def __init__(self, out: str, pictures: int) -> None:
        """Looks, and creates nothing. Raises InputError for what cannot be written."""
        path = path_of(out)
        suffix = path.suffix.lower()
        if suffix in _OTHER_PICTURES:
            raise InputError(f"pictures are written as PNG: --out {path.with_suffix('.png')}")
        is_file = suffix == ".png" and not path.is_dir()
        if is_file and pictures > 1:
            raise InputError(f"--out {path} is one file for {pictures} pictures: give a folder")
        self.file = path if is_file else None
        self.folder = path.parent if is_file else path
        # The part of the path that is there already decides whether the rest can be made.
        there = self.folder
        while not there.exists() and there != there.parent:
            there = there.parent
        check_folder(there)

    def open(self) -> None:
        """Make the folder, and try it. Raises InputError when nothing can be written there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise InputError(f"cannot write to {self.folder}: {error.strerror}") from None

    def save(
        self,
        picture: Image,
        settings: Settings,
        labels: Mapping[str, object] | None = None,
        whole: bool = True,
    ) -> Path:
        """Write a picture as the named file, else by its words, seed and labels in the folder.

        whole: with all its settings in it, and not only the text that other tools read.

        Returns its path. Raises InputError when it cannot be written.
        """
        from sdcore.images import save_png, to_png
        from sdcore.writing import write_new

        if self.file is not None:
            save_png(picture, self.file, settings, whole)
            return self.file
        told = "".join(f"-{bare(str(value))}" for value in (labels or {}).values())
        told = re.sub(r"[^\w.]+", "-", told)[:80].rstrip("-.")
        words = re.sub(r"[\W_]+", "-", settings.prompt.lower())[:48].strip("-") or "picture"
        return write_new(
            self._names(f"{words}-{settings.seed}{told}"), to_png(picture, settings, whole)
        )

    def save_sheet(self, picture: Image, kind: str) -> Path:
        """The same of a sheet: 'sheet.png' in the folder, 'name-sheet.png' beside a named file."""
        from sdcore.images import to_png
        from sdcore.writing import write_new

        stem = kind if self.file is None else f"{self.file.stem}-{kind}"
        return write_new(self._names(stem), to_png(picture))

    def _names(self, stem: str) -> Iterator[Path]:
        """`stem`.png, then with -2, -3 ... for where that is taken."""
        yield self.folder / f"{stem}.png"
        for number in count(2):
            yield self.folder / f"{stem}-{number}.png"
