"""The cells of a sweep, and where each picture goes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdcore.a1111 import bare
from sdcore.errors import InputError
from sdcore.experiments.cells import Cell

LAYOUTS = ("flat", "geneval", "compbench")
NAME_BYTES = 200  # of a prompt in a file's name; with the rest of it below 255


@dataclass(frozen=True)
class Prompt:
    """Words, and whatever else their line of the list said, which is carried along."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A cell, and the path of its picture below the sweep's folder."""

    cell: Cell
    path: str
    metadata: Mapping[str, Any] = field(default_factory=dict)  # of its prompt


def laid_out(cells: Sequence[Cell], prompts: Sequence[Prompt], layout: str) -> list[Picture]:
    """Every cell with its path; cells that are asked for twice are one.

    flat: words-seed-id.png. geneval: 00000/samples/0000.png beside 00000/metadata.jsonl, a folder
    for each prompt. compbench: samples/words_000000.png, numbered in the order of the plan. The
    latter two have a folder for each combination of options, where there are several.

    Raises InputError for another layout.
    """
    if layout not in LAYOUTS:
        raise InputError(f"there is no layout {layout!r}: there is {', '.join(LAYOUTS)}")
    unique = list({cell.id: cell for cell in cells}.values())
    metadata = {each.text: each.metadata for each in prompts}
    number = {text: n for n, text in enumerate(metadata)}
    counted: dict[tuple[str, ...], int] = {}
    pictures = []
    for cell in unique:
        folder = f"{_combination(cell)}/" if cell.labels and layout != "flat" else ""
        if layout == "flat":
            path = f"{_slug(cell.prompt)}-{cell.seed}-{cell.id}.png"
        else:
            key = (folder, cell.asked) if layout == "geneval" else (folder,)
            n = counted[key] = counted.get(key, -1) + 1
            if layout == "geneval":
                path = f"{folder}{number[cell.asked]:05d}/samples/{n:04d}.png"
            else:
                path = f"{folder}samples/{_words(cell.prompt)}_{n:06d}.png"
        pictures.append(Picture(cell, path, metadata[cell.asked]))
    return pictures


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "-", text.lower())[:48].strip("-") or "picture"


def _combination(cell: Cell) -> str:
    said = [f"{name}={bare(str(value))}" for name, value in cell.labels.items()]
    return _cut(re.sub(r"[^\w=.,+-]+", "-", ",".join(said)), 150).strip(".-") or cell.id


def _words(text: str) -> str:
    """The words as T2I-CompBench reads them back; what no file name holds is replaced or cut."""
    return _cut(re.sub(r"[/\0\n\r]", "_", text).lstrip("."))


def _cut(text: str, most: int = NAME_BYTES) -> str:
    """As much of a text as a file's name holds."""
    while len(os.fsencode(text)) > most:
        text = text[:-1]
    return text


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a plan. fixed: the others' pictures are never drawn."""

    index: int = 0
    count: int = 1
    fixed: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise InputError(
                f"shard {self.index}/{self.count} is none: of {self.count} there are "
                f"0/{self.count} to {self.count - 1}/{self.count}"
            )

    @classmethod
    def read(cls, text: str) -> Shard:
        """'2/8'. Raises InputError."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if match is None or int(match[2]) == 0:
            raise InputError(f"a shard is written like 0/8, not {text!r}")
        return cls(int(match[1]), int(match[2]), fixed=True)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Shard:
        """Where torchrun or SLURM say which of several processes this is: it begins there, and
        then helps the others."""
        for index, count, first in (
            ("RANK", "WORLD_SIZE", ""),
            ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
            ("SLURM_PROCID", "SLURM_NTASKS", ""),
        ):
            numbers = [environment.get(name, "0" if name == first else "") for name in
                       (index, count, first or index)]  # fmt: skip
            if all(each.isdigit() for each in numbers[:2]) and int(numbers[1]) > 1:
                begin = int(numbers[2]) if first and numbers[2].isdigit() else 0
                return cls((int(numbers[0]) - begin) % int(numbers[1]), int(numbers[1]))
        return cls()

    def order(self, groups: Sequence[Any]) -> list[Any]:
        """The groups of this process: its own, and behind them the others' where it may."""
        own = list(groups[self.index :: self.count])
        if self.fixed:
            return own
        n = len(groups) * self.index // self.count
        return [*groups[n:], *groups[:n]]
