"""Where pictures go: `--out` as a file or a folder, and names that overwrite nothing."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdcore.a1111 import bare
from sdcore.errors import InputError
from sdcore.paths import check_folder, path_of
from sdcore.picture_form import Form, format_of
from sdcore.settings import Settings
from sdcore.signing import open_signer

if TYPE_CHECKING:
    from PIL.Image import Image

_OTHER_PICTURES = {".gif", ".bmp", ".tif", ".tiff", ".avif", ".jxl"}


def form_of(options: Mapping[str, Any]) -> Form:
    """How the pictures of these options are written: --format, or else as --out ends.

    Raises InputError where the two disagree.
    """
    path, asked = path_of(options["out"]), options["format"]
    ending = None if path.is_dir() else format_of(path)
    if asked is not None and ending not in (None, asked):
        raise InputError(f"--out {path} is a file of {ending}, and --format says {asked}")
    form = next((name for name in (asked, ending) if name is not None), "png")
    whole, mark = not options["no_settings"], not options["no_mark"]
    cert, key = options["c2pa_cert"], options["c2pa_key"]
    if (cert is None) != (key is None):
        raise InputError("--c2pa-cert and --c2pa-key go together: give both")
    sign = None if cert is None else open_signer(cert, key)
    return Form(form, options["quality"], whole=whole, mark=mark, sign=sign)


class Output:
    """The paths of one command's files."""

    def __init__(
        self, out: str, pictures: int, form: Form | None = None, film: bool = False
    ) -> None:
        """Looks, and creates nothing. film: into a folder of its own in `out`, by numbers.

        Raises InputError for what cannot be written.
        """
        self.form = Form() if form is None else form
        self._made: list[Path] = []  # folders, the innermost first
        self.saved = 0  # pictures
        path = path_of(out)
        if path.suffix.lower() in _OTHER_PICTURES:
            raise InputError(
                f"pictures are written as PNG, JPEG or WebP: --out {path.with_suffix('.png')}"
            )
        is_file = format_of(path) is not None and not path.is_dir()
        if is_file and pictures > 1:
            raise InputError(f"--out {path} is one file for {pictures} pictures: give a folder")
        self.file = path if is_file else None
        self.folder = path.parent if is_file else path
        if film:
            folders = _numbered(self.folder / "film")
            self.folder = next(folder for folder in folders if not folder.exists())
        # The part of the path that is there already decides whether the rest can be made.
        there = self.folder
        while not there.exists() and there != there.parent:
            there = there.parent
        check_folder(there)

    def open(self) -> None:
        """Make the folder, and try it. Raises InputError when nothing can be written there."""
        made = [each for each in (self.folder, *self.folder.parents) if not each.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._made = made
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise InputError(f"cannot write to {self.folder}: {error.strerror}") from None

    def check(self, settings: Iterable[Settings]) -> None:
        """Raises InputError where the settings of a picture are too long for its format."""
        from sdcore.images import check_form

        for each in settings:
            check_form(each, self.form)

    def take_back(self) -> None:
        """Remove the folders that `open` made, where nothing was written into them."""
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:  # something is in it
                return

    def save(
        self, picture: Image, settings: Settings, labels: Mapping[str, object] | None = None
    ) -> Path:
        """Write a picture as the named file, else by its words, seed and labels in the folder.

        Returns its path. Raises InputError when it cannot be written.
        """
        from sdcore.images import to_bytes

        labels = {} if labels is None else labels
        data = to_bytes(picture, settings, self.form)
        path = self._written(data, settings, labels)
        self.saved += 1
        return path

    def _written(self, data: bytes, settings: Settings, labels: Mapping[str, object]) -> Path:
        from sdcore.writing import write_new, write_whole

        if self.file is not None:
            write_whole(self.file, data)
            return self.file
        if "frame" in labels:
            return write_new(self._names(str(labels["frame"]), self.form.suffix), data)
        told = "".join(f"-{bare(str(value))}" for value in labels.values())
        told = re.sub(r"[^\w.]+", "-", told)[:80].rstrip("-.")
        words = re.sub(r"[\W_]+", "-", settings.prompt.lower())[:48].strip("-") or "picture"
        return write_new(self._names(f"{words}-{settings.seed}{told}", self.form.suffix), data)

    def save_film(self, frames: Sequence[Image], per_second: float) -> Path:
        """The frames as an animated WebP beside their folder, called like it."""
        from sdcore.film import animated
        from sdcore.writing import write_new

        data = animated(frames, per_second, self.form.mark)
        return write_new(_numbered(self.folder, ".webp"), data)

    def save_sheet(self, picture: Image, kind: str) -> Path:
        """The same of a sheet, a PNG: 'sheet.png' in the folder, 'name-sheet.png' beside a file."""
        from sdcore.images import to_bytes
        from sdcore.writing import write_new

        stem = kind if self.file is None else f"{self.file.stem}-{kind}"
        return write_new(
            self._names(stem),
            to_bytes(picture, None, replace(self.form, format="png", quality=None)),
        )

    def _names(self, stem: str, suffix: str = ".png") -> Iterator[Path]:
        return _numbered(self.folder / stem, suffix)


def _numbered(path: Path, suffix: str = "") -> Iterator[Path]:
    """The name, then with -2, -3 ... for where that is taken."""
    yield path.with_name(f"{path.name}{suffix}")
    for number in count(2):
        yield path.with_name(f"{path.name}-{number}{suffix}")
