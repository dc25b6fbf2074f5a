"""What a picture is written as: a format, how much of it is kept, and what stands in it beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdcore.errors import InputError, unknown

SUFFIXES = {"png": (".png",), "jpeg": (".jpg", ".jpeg"), "webp": (".webp",)}


@dataclass(frozen=True)
class Form:
    """How a picture is written.

    format: "png", "jpeg" or "webp". quality: of JPEG and WebP, 1 to 100 (95); a WebP of 100 loses
    nothing. whole: with all settings; else only `parameters`, which names no folder and no file's
    digest. mark: whether it says that a model made it: `sdcore.marks`. sign: what signs the file:
    `sdcore.signing`. Raises InputError.
    """

    format: str = "png"
    quality: int | None = None
    whole: bool = True
    mark: bool = True
    sign: Callable[[bytes, str, str], bytes] | None = None

    def __post_init__(self) -> None:
        if self.format not in SUFFIXES:
            raise unknown("format", self.format, SUFFIXES)
        if self.quality is not None and self.format == "png":
            raise InputError("a PNG loses nothing: quality is of jpeg and webp")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise InputError(f"quality is 1 to 100, not {self.quality}")

    @property
    def suffix(self) -> str:
        """How the names of its files end: ".png" ..."""
        return SUFFIXES[self.format][0]


def format_of(path: Path) -> str | None:
    """The format that a file's name says; None where it says none of those that are written."""
    suffix = path.suffix.lower()
    return next((name for name, endings in SUFFIXES.items() if suffix in endings), None)
