"""SA-Solver: stochastic Adams, a predictor and a corrector on the same exponential integrals."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdcore.process import Process
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.entry import Entry
from sdcore.schedulers.integrals import (
    combine,
    exact,
    exponential_step,
    exponential_weights,
    newest,
    noise_std,
)
from sdcore.schedulers.noise_schedule import SD_PROCESS

NOISY = (200, 800)  # the timesteps where noise is added, both included


def few_steps(count: int, z: float) -> list[float]:
    """The authors' second order for x0: under the slope e^((1 - s) z) counts as 1."""
    return [exact(1, z)[0], 0.5] if count == 2 else exact(count, z)


def sa_solver(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    eta: float = 0.0,
    predictor_order: int = 2,
    corrector_order: int = 2,
    lower_order_final: bool = True,
    algorithm_type: str = "data_prediction",
    process: Process = SD_PROCESS,
) -> tuple[Tensor, Prediction, Memory]:
    """SA-Solver (Xue et al. 2023, arXiv 2309.05019, algorithm 1, one call a step).

    First the corrector mends the step before: x moves by what its weights give more than the
    predictor's did, the noise being the same. Then the predictor goes on. eta is tau^2 where NOISY;
    elsewhere the step is deterministic. Draws count from the first step on, as in the published
    code, so that the streams agree, and end with the last noisy step.
    """
    sigma, sigma_next, i = interval.sigma, interval.sigma_next, interval.index
    data = algorithm_type == "data_prediction"
    prediction = denoise(x, sigma)
    values = (prediction.x0 if data else prediction.eps, *memory)
    remember = values[: max(predictor_order, corrector_order - 1)]
    if sigma_next == 0:
        return prediction.x0, prediction, remember
    eta = eta if sigma_next <= sigma else 0.0  # none on the way up (inversion)
    etas = [eta * _noisy(process.clock.timestep(s)) for s in interval.sigmas]
    left = interval.count - i if lower_order_final else interval.count
    how: dict[str, Any] = {"rule": few_steps} if data else {"form": "eps"}
    if memory:
        orders = min(corrector_order, left + 2), min(predictor_order, left + 1)
        x = correct(x, values, interval, orders, eta=etas[i - 1], **how)
    if sigma_next == sigma:  # a tail that repeats the last sigma
        return x, prediction, remember
    at = newest(interval.sigmas, i, min(predictor_order, left, len(values)))
    x_next = exponential_step(x, values[: len(at)], at, sigma_next, eta=etas[i], **how)
    if any(etas[i:-1]):
        std = math.sqrt(etas[i] * (sigma**2 - sigma_next**2))
        std = noise_std(sigma, sigma_next, etas[i]) if data else std
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=std)
    return x_next, prediction, remember


def correct(
    x: Tensor,
    values: Sequence[Tensor],
    interval: Interval,
    orders: tuple[int, int],
    **how: Any,
) -> Tensor:
    """x moved from where the last predictor put it to where the corrector does.

    values: the newest is at this x. orders: of the corrector and of the predictor. how: of the
    last step, as `exponential_weights` takes it.
    """
    end, start = newest(interval.sigmas, interval.index, 2)
    for shift, order, sign in ((0, orders[0], 1), (1, orders[1], -1)):
        known = values[shift:][:order]
        at = newest(interval.sigmas, interval.index - shift, len(known))
        weights = exponential_weights(at, start, end, **how)
        x = combine(x, [sign * weight for weight in weights], known)
    return x


def _noisy(timestep: float) -> bool:
    return NOISY[0] <= round(timestep) <= NOISY[1]


ENTRIES = (
    Entry("sa_solver", sa_solver, order=2, nfe=1, paper="arXiv 2309.05019",
          class_name="SASolverScheduler", labels=("SASolverScheduler", "SA-Solver"), eta=1.0,
          stochastic=True),
)  # fmt: skip
