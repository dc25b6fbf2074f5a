"""Options declared once: the keywords of a function, its signature, its help and its refusals."""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from sdcore.errors import InputError
from sdcore.options import documented, method_takes, option, options_of, takes


@dataclass(frozen=True)
class Tea:
    leaves: str = option("Which.", "Tea", "green")
    minutes: int | None = option("How long.", "Tea", kind=int, doc="how long it draws, in minutes.")


@dataclass(frozen=True, kw_only=True)
class Sweet(Tea):
    sugar: float = option("Spoons.", "Sugar", 0.5, kind=float)
    lid: bool | None = option("Whether.", "Sugar", kind=bool)
    tray: tuple[int, int] | None = option("How large.", "Sugar", kind="size")
    rest: str | float | None = option("What is left.", "Sugar")
    plain: str = "no option"


@takes(Sweet, also={"spoons": "sugar"})
def brew(tea: Sweet) -> Sweet:
    """Make tea."""
    return tea


class Pot:
    """What a method belongs to."""

    def __init__(self, name: str) -> None:
        self.name = name

    @method_takes(Sweet)
    def pour(self, tea: Sweet) -> tuple[str, Sweet]:
        """Pour it."""
        return self.name, tea


def test_what_is_declared_in_order_with_its_default() -> None:
    declared = options_of(Sweet)
    assert list(declared) == ["leaves", "minutes", "sugar", "lid", "tray", "rest"]
    defaults = [field.default for field, _ in declared.values()]
    assert defaults == ["green", None, 0.5, None, None, None]
    assert list(options_of(Tea, Sweet)) == list(declared)


def test_keywords_and_places() -> None:
    assert brew() == Sweet()
    assert brew("black", 3, sugar=0) == Sweet(leaves="black", minutes=3, sugar=0)
    assert Pot("blue").pour(minutes=2) == ("blue", Sweet(minutes=2))


def test_zero_is_a_value() -> None:
    assert brew(minutes=0, sugar=0.0) == Sweet(minutes=0, sugar=0.0)


def test_numbers_of_other_libraries_become_pythons() -> None:
    given = {"minutes": np.int64(3), "sugar": np.float32(0.5), "lid": np.bool_(False)}
    made = brew("black", **given, tray=np.array([3, 4]), rest=torch.tensor(2))
    assert made == Sweet("black", 3, sugar=0.5, lid=False, tray=(3, 4), rest=2.0)
    values = (made.minutes, made.sugar, made.lid, made.rest, *(made.tray or ()))
    assert list(map(type, values)) == [int, float, bool, float, int, int]


def test_signature_and_help_are_those_of_the_options() -> None:
    names = ["leaves", "minutes", "sugar", "lid", "tray", "rest", "plain"]
    assert list(inspect.signature(brew).parameters) == names
    assert inspect.signature(brew).parameters["sugar"].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(inspect.signature(Pot("").pour).parameters)[:2] == ["leaves", "minutes"]
    text = "    leaves: Which.\n    minutes: how long it draws, in minutes.\n    sugar: Spoons."
    text += "\n    lid: Whether.\n    tray: How large.\n    rest: What is left."
    assert documented(Sweet) == text
    assert brew.__doc__ == f"Make tea.\n\nOptions:\n{text}"
    assert brew.__name__ == "brew"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"spoons": 2}, "brew has no spoons: it is called sugar$"),
        ({"milk": 1}, "brew has no milk: there are leaves, minutes, sugar"),
        ({"minutes": "three"}, "minutes must be a whole number, not 'three'"),
        ({"minutes": 2.5}, "minutes must be a whole number, not 2.5"),
        ({"minutes": True}, "minutes must be a whole number, not True"),
        ({"sugar": "much"}, "sugar must be a number, not 'much'"),
        ({"sugar": "0.5"}, "sugar must be a number, not '0.5'"),
        ({"sugar": [1]}, r"sugar must be a number, not \[1\]"),
        ({"sugar": 10**400}, "sugar is out of range: 1000"),
        ({"leaves": 5}, "leaves must be a text, not 5"),
        ({"lid": "no"}, "lid must be True or False, not 'no'"),
        ({"lid": 1}, "lid must be True or False, not 1"),
        ({"tray": (3,)}, r"tray must be two whole numbers, \(width, height\), not \(3,\)"),
        ({"tray": "3x4"}, "tray must be two whole numbers"),
        ({"rest": [5]}, r"rest must be a text or a number, not \[5\]"),
    ],
)
def test_refusals_name_the_option(how: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        brew(**how)


def test_too_many_and_twice_are_told_of_the_function() -> None:
    with pytest.raises(TypeError, match=r"^brew\(\): too many positional"):
        brew("black", 3, 1.0)  # type: ignore
    with pytest.raises(TypeError, match=r"^brew\(\): multiple values for argument 'leaves'"):
        brew("black", leaves="green")  # type: ignore
