"""Filters: what looks at every picture before anybody gets it, and says what it found.

    def check(images, **info):                    # mine.py:  sdcore sample ... --filter mine.py
        return images, [mean(image) < 8 for image in images]

images: PIL pictures, RGB. info: `settings`, those of each picture; more may come. What comes back
are as many pictures of the same sizes, changed or not (None: nobody gets it), and a flag for each.
The names of the filters that flagged a picture are in its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image

from sdcore.errors import InputError
from sdcore.free_memory import is_out_of_memory
from sdcore.keywords import keywords
from sdcore.safety_checker import SafetyChecker
from sdcore.settings import Settings
from sdcore.user_file import blame, digest, load_object, said
from sdcore.written import format, parse
from sdcore.written_forms import IN_MEMORY

Filter = Callable[..., Any]  # (images, **info) -> (images, flags)


@dataclass(frozen=True)
class FileFilter:
    """A filter from a file of the user's."""

    check: Filter
    written: str
    file: str

    @property
    def name(self) -> str:
        """Without folders: it goes into answers."""
        function = getattr(self.check, "func", self.check)
        return f"{Path(self.file).name}:{getattr(function, '__name__', 'filter')}"

    def __call__(self, images: Sequence[Image], **info: Any) -> Any:
        return self.check(images, **info)


def open_filters(
    written: Sequence[str] = (), safety: str | None = None, action: str | None = None
) -> tuple[Filter, ...]:
    """The filters of these written forms (`mine.py`, `mine.py:check,least=3`), in order; the safety
    checker of the folder `safety` comes last. action: of `SafetyChecker`; None: "black".

    Raises InputError for a file that does not run or has no such filter, and for no such folder.
    """
    filters: list[Filter] = [_from_file(text) for text in written]
    if safety is not None:
        filters.append(SafetyChecker(safety, "black" if action is None else action))
    elif action is not None:
        raise InputError("an action is of the safety checker: name its folder by --safety")
    return tuple(filters)


def _from_file(text: str) -> FileFilter:
    asked = parse(text)
    if asked.file is None:
        raise InputError(f"a filter is named by its file, mine.py or mine.py:check, not {text!r}")
    path = Path(asked.file)
    names = (asked.name,) if asked.name else ("check", "filter", path.stem)
    check = load_object(path, names, "filter")
    options = keywords(asked.options, check, f"the filter in {text}", skip=1)
    made = partial(check, **options) if options else check
    return FileFilter(made, format(asked), asked.file)


def filtered(
    pictures: Sequence[Image], settings: Sequence[Settings], filters: Sequence[Filter]
) -> Iterator[tuple[Image | None, Settings]]:
    """Every picture as the filters leave it, one after the other, with what they said of it.

    Raises InputError, naming its file, for a filter that fails or returns something else.
    """
    shown: list[Image | None] = list(pictures)
    flags: list[tuple[str, ...]] = [()] * len(shown)
    for check in filters:
        there = [i for i, picture in enumerate(shown) if picture is not None]
        if not there:
            break
        given = [picture for picture in shown if picture is not None]
        answers = _asked(check, given, tuple(settings[i] for i in there))
        for i, picture, flag in zip(there, *answers, strict=True):
            shown[i], flags[i] = picture, (*flags[i], _name(check)) if flag else flags[i]
    written = tuple(_written(check) for check in filters)
    files = [each.file for each in filters if isinstance(each, FileFilter)]
    digests = tuple(f"{digest(file)} {file}" for file in dict.fromkeys(files))
    for picture, each, found in zip(shown, settings, flags, strict=True):
        if written:
            each = replace(each, filters=written, flags=found, digests=(*each.digests, *digests))
        yield picture, each


def _asked(
    check: Filter, images: list[Image], settings: tuple[Settings, ...]
) -> tuple[list[Image | None], list[bool]]:
    """What a filter says of these pictures, found to be as it must be."""
    sizes = [image.size for image in images]
    try:
        answer = check(images, settings=settings)
    except Exception as error:
        if is_out_of_memory(error):
            raise InputError(f"{_name(check)}: out of memory") from error
        raise _blamed(check, error) from error
    try:
        pictures, flags = answer
        pictures, flags = list(pictures), [_flag(flag) for flag in flags]
    except (TypeError, ValueError):
        raise _wrong(check, f"returns {answer!r:.80}") from None
    if (len(pictures), len(flags)) != (len(images), len(images)):
        raise _wrong(
            check, f"returns {len(pictures)} images and {len(flags)} flags for {len(images)}"
        )
    for picture, size in zip(pictures, sizes, strict=True):
        if picture is not None and not isinstance(picture, Image):
            raise _wrong(check, f"returns {type(picture).__name__} as an image")
        if picture is not None and picture.size != size:
            was, now = ("{}x{}".format(*each) for each in (size, picture.size))
            raise _wrong(check, f"makes {now} of a picture of {was}")
    return [None if each is None else each.convert("RGB") for each in pictures], flags


def _flag(flag: Any) -> bool:
    plain = flag.item() if hasattr(flag, "item") else flag
    if not isinstance(plain, bool):
        raise TypeError
    return plain


def _wrong(check: Filter, does: str) -> InputError:
    return InputError(
        f"the filter {_name(check)} {does}: a filter returns (images, flags), for each picture one "
        "of its size (or None) and True or False"
    )


def _blamed(check: Filter, error: Exception) -> InputError:
    """The exception as one line, with the filter's own last line where it is known."""
    if isinstance(check, SafetyChecker):
        return InputError(f"the safety checker of {check.folder}: {said(error)}")
    code = getattr(check, "__code__", None)
    file = check.file if isinstance(check, FileFilter) else getattr(code, "co_filename", None)
    if file is None:
        return InputError(f"the filter {_name(check)}: {said(error)}")
    return blame(error, file, "filter")


def _name(check: Filter) -> str:
    name = getattr(check, "name", getattr(check, "__name__", type(check).__name__))
    return str(name)


def _written(check: Filter) -> str:
    return str(getattr(check, "written", f"{_name(check)} {IN_MEMORY}"))
