"""A folder of pictures with captions, as people have them.

metadata.jsonl, .csv   rows of file_name and text (diffusers' imagefolder); a list of texts: any
cat.txt, cat.caption   beside cat.png (kohya, ai-toolkit, OneTrainer)
10_sks dog/            kohya: ten looks at each in an epoch; "sks dog" where no file says more

Nothing is passed over in silence: what is no picture or has no caption comes back with the reason.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sdcore.errors import InputError
from sdcore.paths import path_of
from sdcore.strict_json import parse

METADATA = ("metadata.jsonl", "metadata.csv")
CAPTIONS = (".txt", ".caption")
_TEXTS = ("text", "caption", "prompt")  # how the column is called
_BESIDE = {*CAPTIONS, ".json", ".jsonl", ".csv", ".toml", ".yaml", ".yml", ".md", ".npz",
           ".safetensors"}  # fmt: skip
_KOHYA = re.compile(r"(\d{1,4})_(.+)")
_MOST = 64 << 20  # bytes of a file of texts


@dataclass(frozen=True)
class Example:
    """A picture and what may be said of it."""

    path: Path
    captions: tuple[str, ...]  # one of them, by chance, at each look
    repeats: int = 1  # looks in an epoch


@dataclass(frozen=True)
class Skipped:
    """A file that is not trained on, and why."""

    path: Path
    reason: str


PLAN = "plan.json"  # what a training writes into its folder first


def read_folder(
    folder: str | Path, caption: str | None = None
) -> tuple[list[Example], list[Skipped]]:
    """Every picture below a folder, in the order of their names, and what was passed over.

    caption: for pictures that have none; without it these are passed over.

    Raises InputError: no such folder, metadata that cannot be read or is misnamed.
    """
    root = path_of(folder)
    if not root.is_dir():
        raise InputError(f"no pictures at {folder}: there is no such folder")
    if (root / PLAN).is_file():
        raise InputError(f"{folder} is the folder of a training, it holds {PLAN}: which pictures?")
    trained = {plan.parent for plan in root.rglob(PLAN)}  # what a training drew is no data
    files = sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not _hidden(path, root) and trained.isdisjoint(path.parents)
    )
    rows = _all_rows(root, files)
    examples: list[Example] = []
    skipped = list(_lost(rows, root))
    for path in files:
        if path.suffix.lower() in _BESIDE:
            continue
        try:
            texts = _captions(path, rows)
        except InputError as error:
            skipped.append(Skipped(path, str(error)))
            continue
        repeats, words = _kohya(path, root)
        texts = texts or ([words] if words else []) or ([caption] if caption else [])
        if not texts:
            why = "has no row in the metadata, and" if rows else "has"
            skipped.append(Skipped(path, f"{why} no caption: give --caption, or write one beside"))
        elif repeats == 0:
            skipped.append(Skipped(path, f"is in a folder of 0 repeats, {path.parent.name}"))
        else:
            examples.append(Example(path, tuple(texts), repeats))
    return examples, skipped


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


# --- what the metadata says ----------------------------------------------------------------------

_Rows = Mapping[str, list[str]]  # by the picture's `_key`


def _key(path: Path) -> str:
    """One spelling of a path, whether it is absolute or not, and with `..` in it or not."""
    return os.path.abspath(path)


def _all_rows(root: Path, files: list[Path]) -> _Rows:
    rows: dict[str, list[str]] = {}
    for path in files:
        if path.name in METADATA:
            for name, texts in _rows(path):  # several rows of a picture: any of their texts
                rows.setdefault(_key(path.parent / name), []).extend(texts)
            continue
        if path.suffix == ".parquet" and path.stem == "metadata":
            raise InputError(f"{path} is not read: write it as metadata.jsonl or metadata.csv")
        near = get_close_matches(path.name.lower(), METADATA, n=1, cutoff=0.8)
        if near:
            raise InputError(f"{path} is not read: is it called {near[0]}?")
    return rows


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    text = _text(path)
    lines = _csv_lines(path, text) if path.suffix == ".csv" else _json_lines(path, text)
    for number, row in _read(path, lines):
        where = f"{path}, line {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where}: no JSON object")
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            columns = ", ".join(map(str, row))
            raise InputError(f"{where}: it has no file_name; its columns are {columns or 'none'}")
        column = next((c for c in _TEXTS if c in row), None)
        if column is None:
            columns = ", ".join(str(key) for key in row if key != "file_name")
            raise InputError(f"{where}: it has no text; its columns are {columns or 'none'}")
        texts = row[column] if isinstance(row[column], list) else [row[column]]
        if not all(isinstance(each, str) for each in texts):
            raise InputError(f"{where}: its {column} is no text")
        yield name, [cleaned for each in texts if (cleaned := _cleaned(each))]


def _read(path: Path, lines: Iterator[tuple[int, object]]) -> Iterator[tuple[int, object]]:
    try:
        yield from lines
    except csv.Error as error:
        raise InputError(f"{path} is garbled: {error}") from None


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, object]]:
    """Rows by their columns; between these stands a comma, or what other countries have for it."""
    head = text.partition("\n")[0]
    between = max(",;\t", key=head.count)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=True)
    for row in table:
        if None in row:
            raise InputError(
                f"{path}, line {table.line_num}: it has more values than columns; a text with "
                f"{between!r} in it stands in quotes"
            )
        yield table.line_num, row


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(text.split("\n"), 1):  # a text may hold other ends of lines
        if not line.strip():
            continue
        try:
            yield number, parse(line)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None


def _lost(rows: _Rows, root: Path) -> Iterator[Skipped]:
    """Rows without a picture of this folder."""
    top = Path(_key(root))
    for key in rows:
        inside = Path(key).is_relative_to(top)
        path = root / Path(key).relative_to(top) if inside else Path(key)
        if not inside:
            yield Skipped(path, "lies outside of the folder")
        elif not _is_file(path):
            yield Skipped(path, "is in the metadata, and there is no such file")


def _is_file(path: Path) -> bool:
    """False, too, for a name that the system cannot look up."""
    try:
        return path_of(path).is_file()
    except InputError:
        return False


# --- what lies beside ----------------------------------------------------------------------------


def _captions(path: Path, rows: _Rows) -> list[str]:
    """What the metadata says of a picture, else the file beside it; [] where neither does."""
    if (key := _key(path)) in rows:
        return rows[key]
    for beside in (path.with_suffix(suffix) for suffix in CAPTIONS):
        if beside.is_file():
            text = _cleaned(_text(beside))
            return [text] if text else []
    return []


def _kohya(path: Path, root: Path) -> tuple[int, str | None]:
    """How often a picture is looked at in an epoch, and the words in its folder's name."""
    for folder in path.relative_to(root).parents:
        if named := _KOHYA.fullmatch(folder.name):
            return int(named[1]), _cleaned(named[2].replace("_", " "))
    named = _KOHYA.fullmatch(root.name)
    return (int(named[1]), _cleaned(named[2].replace("_", " "))) if named else (1, None)


def _text(path: Path) -> str:
    if path.stat().st_size > _MOST:
        raise InputError(f"{path} has more than {_MOST >> 20} MB")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is no UTF-8 text") from None
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror}") from None


def _cleaned(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())
