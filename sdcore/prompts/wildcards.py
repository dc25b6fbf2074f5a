"""Prompts that stand for several: {red|blue} is either, __animals__ a line of animals.txt.

Choices may stand inside each other, an empty one is allowed ({big |}cat), and lines of a file may
hold choices and other files again. \\{ and \\_ are the signs themselves. Lines that are empty or
begin with # are no choices.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from sdcore.errors import InputError

MOST = 10_000  # prompts that one may stand for
_DEPTH = 20  # files that name files
_FILE_BYTES = 4 << 20
_LEXEME = re.compile(
    r"\\.|__[\w./-]+?__|[{|}]|(?:[^\\{|}_]|_(?!_)|__(?![\w./-]+?__))+|.", re.DOTALL
)

Choose = Callable[[int], Iterator[int]]  # how many there are -> which of them to take, in turn


def every(prompt: str, folder: Path) -> list[str]:
    """All prompts that one stands for, the last choice changing first.

    Args:
        folder: where `__name__` is looked for, as name.txt; name may have folders in it.

    Raises InputError for a file that is not there, and for more than `MOST` prompts.

    >>> every("a {red|blue} house", Path())
    ['a red house', 'a blue house']
    """
    texts = list(islice(_expanded(prompt, folder, lambda n: iter(range(n)), 0), MOST + 1))
    if len(texts) > MOST:
        raise InputError(f"a prompt stands for more than {MOST} others: {prompt[:60]!r}")
    return list(dict.fromkeys(texts))


def one(prompt: str, folder: Path, seed: int) -> str:
    """One of them, chosen by the seed: the same one whenever and wherever it is asked for.

    Raises InputError for a file that is not there.
    """
    asked = 0

    def choose(count: int) -> Iterator[int]:
        nonlocal asked
        asked += 1
        digest = hashlib.sha256(f"{seed} {asked}".encode()).digest()
        return iter((int.from_bytes(digest[:8], "big") % count,))

    return next(_expanded(prompt, folder, choose, 0))


def _expanded(text: str, folder: Path, choose: Choose, depth: int) -> Iterator[str]:
    lexemes = _LEXEME.findall(text)
    try:
        for words, _ in _sequence(lexemes, 0, folder, choose, depth, inside=False):
            yield words
    except RecursionError:
        raise InputError("a prompt has hundreds of choices inside each other") from None


def _sequence(
    lexemes: Sequence[str], at: int, folder: Path, choose: Choose, depth: int, inside: bool
) -> Iterator[tuple[str, int]]:
    """Each way to read the lexemes from `at` on, and where it ends: at | or } inside of braces."""
    if at == len(lexemes) or (inside and lexemes[at] in "|}"):
        yield "", at
        return
    for words, then in _item(lexemes, at, folder, choose, depth):
        for rest, end in _sequence(lexemes, then, folder, choose, depth, inside):
            yield words + rest, end


def _item(
    lexemes: Sequence[str], at: int, folder: Path, choose: Choose, depth: int
) -> Iterator[tuple[str, int]]:
    lexeme = lexemes[at]
    if lexeme == "{" and (starts := _options(lexemes, at)):
        *begins, end = starts
        for n in choose(len(begins)):
            for words, _ in _sequence(lexemes, begins[n], folder, choose, depth, inside=True):
                yield words, end
    elif len(lexeme) > 4 and lexeme.startswith("__"):
        lines = _lines(folder, lexeme[2:-2], depth)
        for n in choose(len(lines)):
            for words in _expanded(lines[n], folder, choose, depth + 1):
                yield words, at + 1
    else:
        yield (lexeme[1:] if lexeme in ("\\{", "\\}", "\\_") else lexeme), at + 1


def _options(lexemes: Sequence[str], at: int) -> list[int]:
    """Where the options of the brace at `at` begin, and where the text goes on after them.

    Nothing where it is never closed: then it is a letter.
    """
    begins, open_braces = [at + 1], 0
    for n in range(at + 1, len(lexemes)):
        if lexemes[n] == "{":
            open_braces += 1
        elif lexemes[n] == "}":
            if not open_braces:
                return [*begins, n + 1]
            open_braces -= 1
        elif lexemes[n] == "|" and not open_braces:
            begins.append(n + 1)
    return []


def _lines(folder: Path, name: str, depth: int) -> list[str]:
    path = folder / f"{name}.txt"
    if depth >= _DEPTH:
        raise InputError(f"{path}: {_DEPTH} files name each other in turn")
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise InputError(f"__{name}__ leads out of {folder}: name a file in it")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_FILE_BYTES + 1)
    except (OSError, UnicodeDecodeError, ValueError):
        raise InputError(f"__{name}__ in a prompt needs {path}, which cannot be read") from None
    if len(text) > _FILE_BYTES:
        raise InputError(f"{path} has more than {_FILE_BYTES} letters")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path} has no line to choose")
    return lines
