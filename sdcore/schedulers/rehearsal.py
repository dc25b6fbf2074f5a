"""What a scheduler will do, in numbers, before anything runs."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.sampling import Prediction, Solver, State, Step, sample
from sdcore.schedulers import Plan, Scheduler

MOST = 100_000  # questions to the model of one picture that are counted: about a second and a half


class TooMany(InputError):
    """A solver asks the model more often than is counted."""


@dataclass(frozen=True)
class Row:
    """One step."""

    index: int
    timestep: float  # that the network is told
    sigma: float
    sigma_next: float
    h: float  # log(sigma / sigma_next), the step in lambda; infinite into sigma 0
    nfe: int
    draws: int  # of noise, in this step


def rehearse(
    solver: Solver,
    sigmas: Sequence[float],
    start: Tensor | State | None = None,
    branches: Callable[[float], Sequence[str]] = lambda sigma: (),
    most: int = MOST,
) -> Iterator[Step]:
    """The solver's steps over a model that sees nothing, to count what it asks for.

    branches: sigma -> the names of those that a question there takes; none counts as one. An
    adaptive solver finds no error there, and may ask for more of a real model. Raises TooMany where
    it asks more than `most` times.
    """
    asked = 0
    still = torch.zeros(1, 1, 1, 1)
    one = Prediction(still, still)

    def ask(x: Tensor, sigma: float) -> Prediction:
        nonlocal asked
        asked += 1
        if asked > most:
            raise TooMany(f"the scheduler asks the network more than {most} times for one picture: "
                          "ask for fewer steps, or for less by its options")  # fmt: skip
        return replace(one, branches=dict.fromkeys(branches(sigma), one))

    state = start if isinstance(start, State) else State(still)
    return sample(ask, replace(state, x=still, memory=()), sigmas, solver, lambda *_: still)


def rows_of(scheduler: Scheduler, plan: Plan) -> list[Row]:
    """Every step of a plan."""
    rows, drawn = [], 0
    for step in rehearse(scheduler.solver, plan.sigmas):
        h = math.log(step.sigma / step.sigma_next) if step.sigma_next else math.inf
        t = plan.timesteps[step.index]
        draws, drawn = step.draws - drawn, step.draws
        rows.append(Row(step.index, t, step.sigma, step.sigma_next, h, step.nfe, draws))
    return rows
