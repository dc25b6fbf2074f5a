"""What happened in a training, line by line in log.jsonl: every step, every look at it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sdcore.errors import InputError
from sdcore.training.grid import Measured
from sdcore.training.updates import TrainStep
from sdcore.writing import write_whole

LOG = "log.jsonl"


@dataclass(frozen=True)
class Look:
    """A measurement on the grid, and the sheet that was drawn then."""

    step: int
    measured: Measured
    sheet: str | None = None  # its path within the training's folder


@dataclass
class Record:
    """Steps and looks so far, in memory and in a file."""

    path: Path
    steps: list[TrainStep] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    def add(self, what: TrainStep | Look) -> None:
        self._keep(what)
        try:
            with self.path.open("a") as file:
                file.write(_line(what))
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}") from None

    def _keep(self, what: TrainStep | Look) -> None:
        """A look in place of an earlier one at the same step."""
        if isinstance(what, TrainStep):
            self.steps.append(what)
        else:
            self.looks = [*(look for look in self.looks if look.step != what.step), what]

    @classmethod
    def read(cls, path: Path, until: int) -> Record:
        """What a log has up to a step, of which the file is then all that is kept."""
        record = cls(path)
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                row = json.loads(line)
                if row["step"] > until:
                    continue
                if "measured" in row:
                    numbers = {k: tuple(v) for k, v in row["measured"].items()}
                    record._keep(Look(row["step"], Measured(**numbers), row["sheet"]))
                else:
                    record._keep(TrainStep(**row))
            except (ValueError, KeyError, TypeError):  # the last line of a run that was killed
                continue
        lines = sorted([*record.steps, *record.looks], key=lambda each: each.step)
        write_whole(path, "".join(map(_line, lines)).encode())
        return record


def _line(what: TrainStep | Look) -> str:
    return json.dumps(asdict(what)) + "\n"
