"""SA-Solver: stochastic Adams, a predictor and a corrector on the same exponential integrals."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sdcore.process import Process
from sdcore.sampling import Denoise, Draw, Interval, Memo, Memory, Prediction
from sdcore.schedulers.noise_schedule import SD_PROCESS
from sdcore.schedulers.solvers.integrals import (
    Kind,
    PhiRule,
    combine,
    exact,
    exponential_step,
    exponential_weights,
    noise_std,
)
from sdcore.schedulers.solvers.past import noted, past
from sdcore.schedulers.table_entry import Entry

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
    pece: bool = False,
    process: Process = SD_PROCESS,
) -> tuple[Tensor, Prediction, Memory]:
    """SA-Solver (Xue et al. 2023, arXiv 2309.05019, algorithm 1, one call a step).

    First the corrector mends the step before: x moves by what its weights give more than the
    predictor's did, the noise being the same. Then the predictor goes on. eta is tau^2 where NOISY;
    elsewhere the step is deterministic. Draws count from the first step on, as in the published
    code, so that the streams agree, and end with the last noisy step. pece: the model is asked
    again at the corrected x (predict, evaluate, correct, evaluate), and this answer is remembered.
    """
    sigma, sigma_next, i = interval.sigma, interval.sigma_next, interval.index
    data = algorithm_type == "data_prediction"
    prediction = denoise(x, sigma)
    most = max(predictor_order, corrector_order - 1)
    known = past("x0" if data else "eps", prediction, interval, memory, most + 1)
    if sigma_next == 0:
        return prediction.x0, prediction, tuple(known[:most])
    eta = eta if sigma_next <= sigma else 0.0  # none on the way up (inversion)
    etas = [eta * _noisy(process.clock.timestep(s)) for s in interval.sigmas]
    left = interval.count - i if lower_order_final else interval.count
    rule = few_steps if data else exact
    last = noted(known, "sa_solver")
    if last and last[0] < len(known):
        orders = min(corrector_order, left + 2), int(last[0])
        x = correct(x, known, orders, rule, eta=last[1])
        if pece:
            again = denoise(x, sigma)
            known[0] = known[0]._replace(value=again.x0 if data else again.eps)
    if sigma_next == sigma:  # a tail that repeats the last sigma
        return x, prediction, tuple(known[:most])
    order = min(predictor_order, left, len(known))
    x_next = exponential_step(x, known[:order], sigma_next, rule, etas[i])
    if any(etas[i:-1]):
        std = math.sqrt(etas[i] * (sigma**2 - sigma_next**2))
        std = noise_std(sigma, sigma_next, etas[i]) if data else std
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=std)
    here = known[0]._replace(note=("sa_solver", order, etas[i]))
    return x_next, prediction, (here, *known[1:most])


def correct(
    x: Tensor, known: Sequence[Memo], orders: tuple[int, int], rule: PhiRule, eta: float
) -> Tensor:
    """x moved from where the last predictor put it to where the corrector does.

    known: x0 or eps, the newest at this x. orders: of the corrector and of the predictor. rule,
    eta: of the last step, as `exponential_weights` takes them.
    """
    end, start = known[0].sigma, known[1].sigma
    form: Kind = "eps" if known[0].kind == "eps" else "x0"
    for nodes, sign in ((known[: orders[0]], 1), (known[1:][: orders[1]], -1)):
        at = tuple([memo.sigma for memo in nodes])
        weights = exponential_weights(at, start, end, rule, form, eta)
        x = combine(x, [sign * weight for weight in weights], [memo.value for memo in nodes])
    return x


def _noisy(timestep: float) -> bool:
    return NOISY[0] <= round(timestep) <= NOISY[1]


ENTRIES = (
    Entry("sa_solver", sa_solver, order=2, nfe=1, paper="arXiv 2309.05019",
          class_name="SASolverScheduler", labels=("SASolverScheduler", "SA-Solver"), eta=1.0,
          stochastic=True),
    Entry("sa_solver_pece", sa_solver, order=2, nfe=2, paper="arXiv 2309.05019",
          class_name="SASolverScheduler", options={"pece": True}, eta=1.0, stochastic=True),
)  # fmt: skip
