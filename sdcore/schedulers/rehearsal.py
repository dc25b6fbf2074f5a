"""What a scheduler will do, in numbers, before anything runs."""

import math
from dataclasses import dataclass

import torch

from sdcore.sampling import Prediction, sample
from sdcore.schedulers import Plan, Scheduler


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


def rehearse(scheduler: Scheduler, plan: Plan) -> list[Row]:
    """The solver run on a model that sees nothing, to count what it asks for.

    An adaptive solver finds no error there, and may ask for more of a real model.
    """
    still = torch.zeros(1, 1, 1, 1)
    stub = lambda x, sigma: Prediction(still, still)  # noqa: E731
    noise = lambda draw, sigma, sigma_next: still  # noqa: E731
    rows, drawn = [], 0
    for step in sample(stub, still, plan.sigmas, scheduler.solver, noise):
        h = math.log(step.sigma / step.sigma_next) if step.sigma_next else math.inf
        t = plan.timesteps[step.index]
        draws, drawn = step.draws - drawn, step.draws
        rows.append(Row(step.index, t, step.sigma, step.sigma_next, h, step.nfe, draws))
    return rows
