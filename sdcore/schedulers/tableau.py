"""Butcher tableaux: Runge-Kutta methods as data, read from files that look as they are printed.

A method takes y to y + h sum_i b_i k_i by its stages k_i = f(u + c_i h, y + h sum_j a_ij k_j)
(Butcher 2016, Numerical Methods for ODEs, section 232). Its file is the tableau itself:

    Bogacki & Shampine 1989              who found it
    # any remark

      0 |                                c_i | a_i1 a_i2 ...
    1/2 |  1/2
    3/4 |    0  3/4
      1 |  2/9  1/3  4/9
    ----+--------------------
      3 |  2/9  1/3  4/9    0            order | b_1 b_2 ...
      2 | 7/24  1/4  1/3  1/8            order | b of the embedded method, where there is one

A number is whole, a decimal or a fraction of whole numbers. A row ends at its last number above 0,
or earlier than the stage (explicit) or at the stage itself (diagonally implicit).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sdcore.errors import InputError
from sdcore.paths import path_of

FOLDER = Path(__file__).parent / "tableaux"
SUFFIX = ".tableau"
MAX_LETTERS, MAX_STAGES = 1 << 16, 64
_NUMBER = re.compile(r"[+-]?(\d{1,99}/\d{1,99}|(?=\.?\d)\d{0,99}\.?\d{0,99}(e[+-]?\d{1,2})?)", re.I)
_LINE = re.compile(r"[-\s]*\+?[-\s]*")
_CLOSE = 1e-9  # what a printed number may be rounded by
Row = tuple[float, ...]
OUTSIDE = "c is 0 to 1: the model is asked between the ends of a step"


@dataclass(frozen=True)
class Tableau:
    """A Runge-Kutta method, explicit or diagonally implicit.

    a: a row for each stage, of as many numbers as there are stages before it, or of one more, its
        own. b: one number for each stage.
    embedded: the b of a second method of the same stages, of another order, whose difference is an
        estimate of the error; () for none.
    order, embedded_order: what they claim; 0: nothing. source: who found it.

    Raises InputError for rows of other lengths, for c outside of 0 to 1, and for b that do not add
    up to 1.
    """

    a: tuple[Row, ...]
    b: Row
    embedded: Row = ()
    order: int = 0
    embedded_order: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        if any(len(row) not in (i, i + 1) for i, row in enumerate(self.a)):
            raise InputError(
                "a tableau has a number in row i of a for each of the i stages before, or one more "
                "on the diagonal; with further ones it is fully implicit, which is not here"
            )
        for b in (self.b, self.embedded) if self.embedded else (self.b,):
            if len(b) != len(self.a) or abs(math.fsum(b) - 1) > _CLOSE:
                raise InputError("the b of a tableau, one for each stage, add up to 1")
        if not all(map(math.isfinite, (*sum(self.a, ()), *self.b, *self.embedded))):
            raise InputError("the numbers of a tableau are finite")
        if not all(-_CLOSE <= c <= 1 + _CLOSE for c in self.c):
            raise InputError(f"{OUTSIDE}, and one row of a adds up to another number")

    @cached_property
    def c(self) -> Row:
        """Where the stages are: c_i = sum_j a_ij."""
        return tuple(math.fsum(row) for row in self.a)

    @cached_property
    def implicit(self) -> int:
        """How many stages ask for their own slope."""
        return sum(len(row) > i and row[i] != 0 for i, row in enumerate(self.a))

    @cached_property
    def is_blind(self) -> bool:
        """Whether the embedded method tells nothing where the slope depends on u alone: both give
        the stages at one u the same weight. Steps are then taken far too long (Hairer, Norsett &
        Wanner 1993, section II.4); Fehlberg's 7(8) and Feagin's are such pairs."""
        apart: dict[float, float] = {}
        for c, b, other in zip(self.c, self.b, self.embedded, strict=False):
            level = next((known for known in apart if abs(known - c) < _CLOSE), c)
            apart[level] = apart.get(level, 0.0) + b - other
        return bool(apart) and all(abs(weight) < _CLOSE for weight in apart.values())

    @property
    def iterations(self) -> int:
        """Of an implicit stage, by default: one more than the order needs, at least one."""
        return max(self.order, 1)

    @cached_property
    def ends_in_a_stage(self) -> bool:
        """Whether the last stage is y_next itself: its slope is the next step's first ("FSAL")."""
        return len(self.a) > 1 and self.a[-1] == self.b[:-1] and self.b[-1] == 0

    @cached_property
    def alone(self) -> Tableau:
        """The method without the stages that only the embedded one asks for."""
        used = max(i for i, b in enumerate(self.b) if b) + 1
        return Tableau(self.a[:used], self.b[:used], (), self.order, 0, self.source)


def read(path: str | Path) -> Tableau:
    """The tableau in a file. Raises InputError, with the line, for a file that holds none."""
    path = path_of(path)
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_LETTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"cannot read the tableau {str(path)!r}: {why}") from None
    return parse(text, path.name)


def parse(text: str, name: str) -> Tableau:
    """The tableau that a text holds. name: of its file, for messages. Raises InputError."""
    if len(text) > MAX_LETTERS:
        raise InputError(f"{name} is longer than {MAX_LETTERS:,} letters, and no tableau")
    source, stages, methods, below = "", [], [], False
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{name}, line {number}"
        if "|" in line:
            left, _, right = line.partition("|")
            row = (where, left.strip(), [_number(word, where) for word in right.split()])
            (methods if below else stages).append(row)
        elif _LINE.fullmatch(line):
            below = True
        elif source or stages:
            raise InputError(f"{where}: a row of a tableau is written   1/2 | 1/4 1/4")
        else:
            source = line.strip()[:100]
    return _made(name, source, stages, methods)


def _made(name: str, source: str, stages: list, methods: list) -> Tableau:
    if not 1 <= len(stages) <= MAX_STAGES or len(methods) not in (1, 2):
        raise InputError(
            f"{name}: a tableau has 1 to {MAX_STAGES} rows   c | a a ...   a line of -, and below "
            "it one row   order | b b ...   or two"
        )
    rows = []
    for i, (where, left, numbers) in enumerate(stages):
        if len(numbers) > i + 1 and any(numbers[i + 1 :]):
            raise InputError(f"{where}: stage {i + 1} asks for later ones, which is not here")
        kept = i + 1 if len(numbers) > i and numbers[i] else i
        rows.append(tuple((numbers + [0.0] * i)[:kept]))
        if abs(_number(left, where) - math.fsum(rows[-1])) > _CLOSE:
            raise InputError(f"{where}: c is {left}, and the a add up to {math.fsum(rows[-1]):.9g}")
        if not 0 <= _number(left, where) <= 1:
            raise InputError(f"{where}: {OUTSIDE}, and this is {left}")
    orders, weights = [], []
    for where, left, numbers in methods:
        if not re.fullmatch(r"[1-9]|[12]\d", left):
            raise InputError(f"{where}: the order, before the |, is a number from 1 to 29")
        if len(numbers) != len(rows):
            raise InputError(f"{where}: {len(numbers)} b, and {len(rows)} stages")
        if abs(math.fsum(numbers) - 1) > _CLOSE:
            raise InputError(f"{where}: the b add up to 1, and not to {math.fsum(numbers):.9g}")
        orders.append(int(left))
        weights.append(tuple(numbers))
    embedded = weights[1] if weights[1:] else ()
    return Tableau(tuple(rows), weights[0], embedded, orders[0], (orders[1:] or [0])[0], source)


def _number(text: str, where: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise InputError(f"{where}: {text[:40]!r} is no number like 2, 0.25 or -1/4")
    over, _, under = text.partition("/")
    try:
        return int(over) / int(under) if under else float(over)
    except (ZeroDivisionError, OverflowError):
        raise InputError(f"{where}: {text[:40]!r} is no number") from None


# Every file in the folder, by its name.
TABLEAUX = {path.stem: read(path) for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}
