"""Options declared once: the keywords of a function, its signature, its help and its refusals."""

import inspect
from dataclasses import dataclass
from typing import Any

import pytest

from sdcore.errors import InputError
from sdcore.options import documented, method_takes, option, options_of, takes


@dataclass(frozen=True)
class Tea:
    leaves: str = option("Which.", "Tea", "green")
    minutes: int | None = option("How long.", "Tea", kind=int, doc="how long it draws, in minutes.")


@dataclass(frozen=True, kw_only=True)
class Sweet(Tea):
    sugar: float = option("Spoons.", "Sugar", 0.5, kind=float)
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
    assert list(declared) == ["leaves", "minutes", "sugar"]
    assert [field.default for field, _ in declared.values()] == ["green", None, 0.5]
    assert list(options_of(Tea, Sweet)) == ["leaves", "minutes", "sugar"]


def test_keywords_and_places() -> None:
    assert brew() == Sweet()
    assert brew("black", 3, sugar=0) == Sweet(leaves="black", minutes=3, sugar=0)
    assert Pot("blue").pour(minutes=2) == ("blue", Sweet(minutes=2))


def test_zero_is_a_value() -> None:
    assert brew(minutes=0, sugar=0.0) == Sweet(minutes=0, sugar=0.0)


def test_signature_and_help_are_those_of_the_options() -> None:
    assert list(inspect.signature(brew).parameters) == ["leaves", "minutes", "sugar", "plain"]
    assert inspect.signature(brew).parameters["sugar"].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(inspect.signature(Pot("").pour).parameters)[:2] == ["leaves", "minutes"]
    text = "    leaves: Which.\n    minutes: how long it draws, in minutes.\n    sugar: Spoons."
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
        ({"sugar": "much"}, "sugar must be a number, not 'much'"),
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
