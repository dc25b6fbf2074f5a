"""The folder of a sweep: its pictures are the truth; what else is known of them lies in .sweep.

.sweep/claims/        who draws what
.sweep/manifest.*     of each process, a line for each picture that it has drawn
.sweep/failed/        of each cell that failed, how often and why
    .sweep/models/        what the first pictures were drawn with: digests of files, precision
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdcore.errors import InputError
from sdcore.experiments.sweep.plan import Picture
from sdcore.settings import Settings
from sdcore.version import VERSION
from sdcore.writing import take_away_leftovers, write_whole, written_whole


class CannotWrite(InputError):
    """The folder takes nothing any more: a full disk, a lost right. No cell is to blame."""


@dataclass(frozen=True)
class Finished:
    """A picture that is ready to be written."""

    data: bytes  # the PNG
    settings: Settings
    nfe: int
    seconds: float


class Folder:
    """A sweep's folder, as one process sees it."""

    def __init__(self, root: Path, worker: str, mix: bool = False) -> None:
        """mix: whether other weights, or another number format, may draw the rest of it."""
        self.root, self.worker, self.mix = root, worker, mix
        self.hidden = root / ".sweep"
        self._models: set[tuple[str, str]] = set()

    def open(self, layout: str, pictures: Sequence[Picture]) -> None:
        """Make it. Raises InputError where it cannot be written, or has another layout; and where
        pictures are numbered by the plan, and it is another plan's."""
        try:
            for name in ("claims", "failed", "models"):
                (self.hidden / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {self.root}: {error.strerror}") from None
        take_away_leftovers(self.hidden)
        ids = "".join(f"{each.cell.id} {each.path}\n" for each in pictures)
        plan = "" if layout == "flat" else hashlib.sha256(ids.encode()).hexdigest()[:16]
        there, _, of = (
            _exclusive(self.hidden / "layout", f"{layout} {plan}".encode()).decode().partition(" ")
        )
        if there != layout:
            raise InputError(f"{self.root} has the layout {there}, and not {layout}")
        if of != plan:
            raise InputError(
                f"{self.root} holds another plan, and {layout} numbers pictures by the plan: take "
                "another folder, or the layout flat"
            )

    # --- pictures

    def is_done(self, picture: Picture) -> bool:
        return (self.root / picture.path).exists()

    def publish(self, picture: Picture, done: Finished) -> bool:
        """Give the picture its name, whole; whether that was free. Raises CannotWrite."""
        path = self.root / picture.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if picture.metadata:
                self._metadata(picture, path)
            with written_whole(path) as new, new.open("wb") as file:
                file.write(done.data)
                file.flush()
                os.fsync(file.fileno())
        except InputError as error:
            if path.exists():
                return False
            raise CannotWrite(str(error)) from None
        except OSError as error:
            raise CannotWrite(f"cannot write {path}: {error.strerror}") from None
        facts = {"nfe": done.nfe, "seconds": round(done.seconds, 4), "worker": self.worker}
        line = json.dumps({"id": picture.cell.id, "file": picture.path, **facts})
        try:
            with (self.hidden / f"manifest.{self.worker}.jsonl").open("a") as file:
                file.write(f"\n{line}\n")  # whatever a full disk has left of the line before
        except OSError as error:
            raise CannotWrite(f"cannot write to {self.hidden}: {error.strerror}") from None
        return True

    def _metadata(self, picture: Picture, path: Path) -> None:
        """GenEval's metadata.jsonl beside the samples of a prompt."""
        if path.parent.name == "samples" and path.parent.parent != self.root:
            beside = path.parent.parent / "metadata.jsonl"
            if not beside.exists():
                line = {**picture.metadata, "prompt": picture.cell.prompt}
                write_whole(beside, (json.dumps(line) + "\n").encode())

    def check_model(self, settings: Settings) -> None:
        """Raises InputError where the sweep was begun with other weights, another file of code
        under the same name, another version of a package, or another precision."""
        facts = {name: digest for digest, _, name in
                 (each.partition(" ") for each in settings.digests)}  # fmt: skip
        facts[f"the precision of {settings.model}"] = settings.dtype
        facts |= {f"version of {name}": version for name, _, version in
                  (each.rpartition(" ") for each in settings.packages)}  # fmt: skip
        for name, now in facts.items():
            if self.mix or (name, now) in self._models:
                continue
            path = self.hidden / "models" / hashlib.sha256(name.encode()).hexdigest()[:16]
            about = {"version": VERSION, "torch": torch.__version__, "device": settings.device}
            text = json.dumps({"name": name, "digest": now, **about})
            then = json.loads(_exclusive(path, text.encode()))["digest"]
            if then != now:
                raise InputError(
                    f"{self.root} was begun with another {name}: {then} then, {now} now; --mix "
                    "allows it, or take another folder"
                )
            self._models.add((name, now))

    # --- failures

    def attempts(self, picture: Picture) -> int:
        """How often it has failed."""
        return int(self.failure(picture).get("attempts", 0))

    def failure(self, picture: Picture) -> Mapping[str, Any]:
        try:
            return json.loads((self.hidden / "failed" / picture.cell.id).read_text())
        except (OSError, ValueError):
            return {}

    def failed(self, picture: Picture, error: str) -> None:
        """Note it. Raises CannotWrite."""
        facts = {"attempts": self.attempts(picture) + 1, "error": error, "worker": self.worker,
                 "prompt": picture.cell.prompt, "seed": picture.cell.seed,
                 "options": {k: str(v) for k, v in picture.cell.options.items()}}  # fmt: skip
        try:
            path = self.hidden / "failed" / picture.cell.id
            write_whole(path, json.dumps(facts).encode())
        except InputError as full:
            raise CannotWrite(str(full)) from None

    def forgive(self, picture: Picture) -> None:
        """It has been drawn after all."""
        (self.hidden / "failed" / picture.cell.id).unlink(missing_ok=True)

    # --- what is known of all

    def manifest(self) -> dict[str, Mapping[str, Any]]:
        """By id, the lines of every process, as far as their pictures are there."""
        known: dict[str, Mapping[str, Any]] = {}
        for path in sorted(self.hidden.glob("manifest.*.jsonl")):
            for line in _lines(path):
                if (self.root / str(line.get("file"))).exists() and "id" in line:
                    known.setdefault(line["id"], line)
        return known

    def orphans(self, pictures: Sequence[Picture]) -> int:
        """How many pictures of other plans are there."""
        return len(self.manifest().keys() - {each.cell.id for each in pictures})

    def write_results(self, pictures: Sequence[Picture]) -> list[Path]:
        """results.csv and results.jsonl: a line for each picture that is there, as the plan has it.

        Raises CannotWrite.
        """
        known, rows = self.manifest(), []
        take_away_leftovers(self.root)
        labels = list(dict.fromkeys(name for each in pictures for name in each.cell.labels))
        for each in pictures:
            if not self.is_done(each):
                continue
            line = known.get(each.cell.id, {})  # none: killed between picture and line
            rows.append({
                "id": each.cell.id, "file": each.path, "prompt": each.cell.prompt,
                "seed": each.cell.seed, **{name: each.cell.labels.get(name) for name in labels},
                **{name: line.get(name) for name in ("nfe", "seconds", "worker")},
            })  # fmt: skip
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["id"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        lines = "".join(json.dumps(row, default=str) + "\n" for row in rows)
        paths = [self.root / "results.csv", self.root / "results.jsonl"]
        try:
            for path, whole in zip(paths, (text.getvalue(), lines), strict=True):
                write_whole(path, whole.encode())
        except InputError as error:
            raise CannotWrite(str(error)) from None
        return paths


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a manifest that are whole."""
    for line in path.read_text(errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _exclusive(path: Path, data: bytes) -> bytes:
    """Write a file that is not there yet; what is in it then. Raises CannotWrite."""
    try:
        if not path.exists():
            try:
                with written_whole(path) as new:
                    new.write_bytes(data)
            except InputError:
                if not path.exists():  # else another process was first
                    raise
        return path.read_bytes()
    except InputError as error:
        raise CannotWrite(str(error)) from None
    except OSError as error:
        raise CannotWrite(f"cannot read {path}: {error.strerror}") from None
