"""Composable diffusion: several prompts, each with its weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from sdcore.errors import InputError
from sdcore.guidance.base import Branches, Guidance, Source, column, of_one_network
from sdcore.guidance.cfg import CFG
from sdcore.guidance.table_entry import Entry
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class Composed:
    """Several prompts at once (Liu et al. 2022, arXiv 2206.01714, eq. 11).

    uncond + scale * sum_i weights_i (cond_i - uncond): the picture's own prompt with the first
    weight, then each of `prompts`. A negative weight leads away. With no more prompts and weight 1
    it is CFG. Raises InputError where the weights are not one more than the prompts.
    """

    scale: float = 7.5
    prompts: tuple[str, ...] = ()
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.prompts) + 1:
            raise InputError("composed needs a weight for the prompt, and one for each more")

    @property
    def names(self) -> tuple[str, ...]:
        return ("cond", *(f"cond {i}" for i in range(2, len(self.weights) + 1)))

    @property
    def sources(self) -> Mapping[str, Source]:
        pairs = zip(self.names[1:], self.prompts, strict=True)
        return {name: Source(text=text) for name, text in pairs}

    def branches(self, sigma: float) -> tuple[str, ...]:
        if self.weights == (1.0,):
            return CFG(self.scale).branches(sigma)
        return ("uncond", *self.names)

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        if self.weights == (1.0,):
            return CFG(self.scale).combine(predictions, x, sigma)
        uncond = predictions["uncond"]
        x0, eps = uncond.x0, uncond.eps
        for name, weight in zip(self.names, self.weights, strict=True):
            share = self.scale * weight
            x0 = x0 + share * (predictions[name].x0 - uncond.x0)
            eps = eps + share * (predictions[name].eps - uncond.eps)
        return Prediction(x0, eps)


@dataclass(frozen=True)
class Conjunction:
    """The parts of each picture's prompt as one prompt, under any guidance: what AND joins.

    cond = uncond + sum_i w_i (cond_i - uncond), so that CFG over it is eq. 11 of Liu et al. 2022
    (arXiv 2206.01714): uncond + scale * sum_i w_i (cond_i - uncond). The branches are "cond",
    "and 2", "and 3" ...; a picture of fewer parts has weight 0 there, and is drawn as alone.

    inner: the guidance, which sees one "cond".
    weights: for each picture those of its parts; "uncond" is asked for where they do not add up
        to 1.
    """

    inner: Guidance
    weights: tuple[tuple[float, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return part_names(max(map(len, self.weights)))

    def branches(self, sigma: float) -> tuple[str, ...]:
        asked = tuple(self.inner.branches(sigma))
        if "cond" not in asked:
            return asked
        rest = ("uncond",) if any(sum(row) != 1 for row in self.weights) else ()
        return tuple(dict.fromkeys((*asked, *self.names, *rest)))

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        if "cond" not in predictions:
            return self.inner.combine(predictions, x, sigma)
        shares = [self._shares(n, x) for n in range(len(self.names))]
        names = self.names
        if "uncond" in predictions:
            names = (*names, "uncond")
            shares.append(_column([1 - sum(row) for row in self.weights], x))
        if (said := of_one_network(predictions, *names)) is not None:
            raw = {**said.raw, "cond": _sum(shares, [said.raw[n] for n in names])}
            one = Branches(raw, x, sigma, said.process, said.others)
            return self.inner.combine(one, x, sigma)
        x0, eps = (
            _sum(shares, [getattr(predictions[n], form) for n in names]) for form in ("x0", "eps")
        )
        return self.inner.combine({**predictions, "cond": Prediction(x0, eps)}, x, sigma)

    def of(self, part: slice) -> Self:
        """The same for some of the pictures."""
        return replace(self, weights=self.weights[part])

    def _shares(self, n: int, x: Tensor) -> float | Tensor:
        return _column([row[n] if n < len(row) else 0.0 for row in self.weights], x)


def part_names(count: int) -> tuple[str, ...]:
    """The branches of a prompt of so many parts."""
    return ("cond", *(f"and {n}" for n in range(2, count + 1)))


def _column(numbers: Sequence[float], x: Tensor) -> float | Tensor:
    """One number for each picture, [B,1,1,1]; where they are equal, that number."""
    if len(set(numbers)) == 1:
        return numbers[0]
    return column(x.new_tensor(numbers), x)


def _sum(shares: Sequence[float | Tensor], values: Sequence[Tensor]) -> Tensor:
    """Those of share 0 are left out where that is so of all pictures."""
    terms = [value * share for share, value in zip(shares, values, strict=True)
             if isinstance(share, Tensor) or share != 0]  # fmt: skip
    total = terms[0] if terms else values[0] * 0
    for term in terms[1:]:
        total = total + term
    return total


ENTRIES = (
    Entry("composed", Composed, "arXiv 2206.01714, eq. 11", "several prompts, a branch more each"),
)
