"""What the UNet is told, where that changes on the way down: one stage for each stretch of sigmas.

A prompt may change midway ([a:b:0.5]), and another model may take over. Either is tied to a noise
level and not to a count, so that a solver may ask the model as often as it likes, at any sigma.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.networks import Networks
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction, Solver

Condition = Mapping[str, Tensor]  # argument of the UNet -> [B,...]
Conditions = Mapping[str, Condition]  # by branch

# Tokens of a context at most, as repeated for a batch: 851 chunks. Prompts of 1, 3, 5, 7, 8, 9, 11
# and 13 chunks would come to 360,360.
MOST_TOKENS = 1 << 16


@dataclass(frozen=True)
class Stage:
    """What the UNet is told from some sigma down."""

    sigma: float  # the highest that belongs to it; inf for the first
    conditions: Conditions
    lengths: tuple[int, ...]  # tokens of each picture's context before it repeats itself
    networks: Networks | None = None  # whose UNet is told; None: the run's own

    def told_also(self, **more: Tensor) -> Stage:
        """The same with further arguments [B,...], in every branch."""
        if isinstance(self.conditions, Rows):
            return replace(self, conditions=self.conditions.with_more(more))
        conditions = {
            branch: {**condition, **more} for branch, condition in self.conditions.items()
        }
        return replace(self, conditions=conditions)

    def of(self, part: slice) -> Stage:
        """The same for some of the pictures, equal to what they would be told alone."""
        lengths = self.lengths[part]
        if isinstance(self.conditions, Rows):
            return replace(self, conditions=self.conditions.of(part), lengths=lengths)
        length = math.lcm(*lengths)
        conditions = {
            branch: {
                key: rows[part, :length] if key == "context" else rows[part]
                for key, rows in condition.items()
            }
            for branch, condition in self.conditions.items()
        }
        return replace(self, conditions=conditions, lengths=lengths)


@dataclass(frozen=True)
class Staged:
    """A Denoise made of several: each from its sigma down to where the next begins."""

    stages: Sequence[tuple[float, Denoise]]  # sigmas falling; the first is asked above its own, too

    def __call__(self, x: Tensor, sigma: float) -> Prediction:
        """The Prediction of x [B,C,H,W], by the stage that sigma lies in."""
        begun = [denoise for start, denoise in self.stages if sigma <= start]
        return (begun or [self.stages[0][1]])[-1](x, sigma)


def whole_steps(solver: Solver) -> Solver:
    """The solver, all of whose questions within one step are asked of one stage.

    A stage begins where a step does. A question at the far end of the step before, as Heun's second
    one, would meet the same sigma: it is asked one rounding nearer, where that step's stage still
    is. (sigma 0 lies in the last stage whoever asks.)
    """

    def solve(
        denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
    ) -> tuple[Tensor, Prediction, Memory]:
        def ask(x: Tensor, sigma: float) -> Prediction:
            if sigma == interval.sigma_next != 0:
                sigma = math.nextafter(sigma, interval.sigma)
            return denoise(x, sigma)

        return solver(ask, x, interval, memory, draw)

    return solve


def handed_over(
    first: Sequence[Stage], then: Sequence[Stage], sigma: float, networks: Networks
) -> tuple[Stage, ...]:
    """The stages of a run that other networks go on with below `sigma`, in stages of their own.

    An ensemble of expert denoisers (Balaji et al. 2022, arXiv 2211.01324), as SDXL and its refiner
    are. The solver's memory goes over with the picture.
    """
    below = math.nextafter(sigma, 0.0)
    begun = [stage for stage in then if stage.sigma >= below][-1]
    later = [replace(begun, sigma=below), *(stage for stage in then if stage.sigma < below)]
    kept = [stage for stage in first if stage.sigma >= sigma]
    return (*kept, *(replace(stage, networks=networks) for stage in later))


@dataclass(frozen=True)
class Rows(Mapping[str, Condition]):
    """What each picture is told, kept apart until somebody asks for a branch of all of them.

    Of ten thousand pictures of one prompt the words lie in memory once. Contexts of unequal
    length, from prompts of more or fewer chunks, are repeated to their least common multiple.
    That changes nothing: attention is a mean over the tokens, and the mean of a list said twice is
    that of the list.

    told: for each branch what each picture is told, [1,...] by argument.

    Raises InputError on asking where that comes to more than `MOST_TOKENS`.
    """

    told: Mapping[str, tuple[Condition, ...]]

    def __getitem__(self, branch: str) -> Condition:
        lengths = [row["context"].shape[1] for rows in self.told.values() for row in rows]
        length = math.lcm(*lengths)
        if length > max(MOST_TOKENS, *lengths):
            raise InputError(
                f"prompts of {len(set(lengths))} different lengths, up to {max(lengths)} tokens, "
                "cannot be drawn in one batch: take fewer at once (--batch 1)"
            )
        rows = self.told[branch]
        return {
            key: torch.cat([repeated(key, row[key], length) for row in rows]) for key in rows[0]
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self.told)

    def __len__(self) -> int:
        return len(self.told)

    def of(self, part: slice) -> Rows:
        """Those of some of the pictures."""
        return Rows({branch: rows[part] for branch, rows in self.told.items()})

    def with_more(self, more: Condition) -> Rows:
        """With further arguments [B,...] in every branch."""
        parts = {key: value.split(1) for key, value in more.items()}

        def row(condition: Condition, i: int) -> Condition:
            return {**condition, **{key: rows[i] for key, rows in parts.items()}}

        return Rows(
            {
                branch: tuple(row(condition, i) for i, condition in enumerate(rows))
                for branch, rows in self.told.items()
            }
        )


def stack(sigma: float, told: Mapping[str, Sequence[Condition]]) -> Stage:
    """One stage of all pictures. told: for each branch what each picture is told, [1,...]."""
    lengths = tuple(
        math.lcm(*(row["context"].shape[1] for row in rows))
        for rows in zip(*told.values(), strict=True)
    )
    return Stage(sigma, Rows({branch: tuple(rows) for branch, rows in told.items()}), lengths)


def repeated(key: str, row: Tensor, length: int) -> Tensor:
    """An argument of the UNet, a context repeated to `length` tokens: that changes nothing."""
    if key != "context" or row.shape[1] == length:
        return row
    return row.repeat(1, length // row.shape[1], 1)
