"""A solver that is answered one question at a time, by a loop that asks the model itself.

A solver is a pure function, so it need not wait for an answer: it is run again from the step's
beginning with all the answers so far, and gets one question further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.sampling import Draw, Interval, Memory, Prediction, Solver, State
from sdcore.schedulers.rehearsal import rehearse


@dataclass(frozen=True)
class Question:
    """What a solver asks of the model."""

    x: Tensor  # [B,...] in the form x0 + sigma * eps
    sigma: float


class _Asked(BaseException):  # not an Exception: no solver is to catch it
    def __init__(self, question: Question) -> None:
        self.question = question


def resumed(
    solver: Solver,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    answers: Sequence[Prediction],
) -> Question | tuple[Tensor, Prediction, Memory]:
    """What the solver asks after these answers, or, where they are all, what it returns.

    draw: gives the same noise each time, draw by draw. Raises InputError where the first question
    is not of x itself.
    """
    given = 0

    def ask(x_asked: Tensor, sigma: float) -> Prediction:
        nonlocal given
        if given == len(answers):
            raise _Asked(Question(x_asked, sigma))
        if given == 0 and x_asked is not x and not torch.equal(x_asked, x):
            raise InputError("this solver moves x before it asks the model, which was asked of x")
        given += 1
        return answers[given - 1]

    try:
        return solver(ask, x, interval, memory, draw)
    except _Asked as asked:
        return asked.question


@dataclass(frozen=True)
class Layout:
    """Where a solver asks the model on the way over a schedule."""

    sigmas: tuple[float, ...]  # of every question
    begins: tuple[int, ...]  # the number of each step's first question; at the end, that of all

    @property
    def per_step(self) -> int:
        """Questions of most steps."""
        counts = [after - before for before, after in pairwise(self.begins)]
        return max(counts, key=lambda n: (counts.count(n), n))


def layout(solver: Solver, sigmas: Sequence[float], start: int = 0) -> Layout:
    """The questions of a whole run, or of one from step `start` on.

    Raises InputError where a step does not begin with a question at its own sigma.
    """
    asked: list[float] = []

    def note(sigma: float) -> tuple[str, ...]:
        asked.append(sigma)
        return ()

    state = State(torch.zeros(1, 1, 1, 1), index=start)
    counts = [step.nfe for step in rehearse(solver, sigmas, state, note)]
    begins = (0, *accumulate(counts))
    for sigma, begin in zip(sigmas[start:-1], begins, strict=False):
        if begin == len(asked) or asked[begin] != sigma:
            raise InputError("this solver raises sigma before it asks the model")
    return Layout(tuple(asked), begins)
