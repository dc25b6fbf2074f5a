"""Linear multistep on eps: PLMS, which Stable Diffusion 1 was published with, and all of PNDM."""

from functools import partial

import torch
from torch import Tensor

from sdcore.process import Process, Sigmas, VariancePreserving
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.noise_schedule import SD_PROCESS
from sdcore.schedulers.solvers.along import Variable, over
from sdcore.schedulers.solvers.past import answered, past_of_equal_steps
from sdcore.schedulers.table_entry import Entry

# Adams-Bashforth weights for equal steps, the newest eps first (Liu et al. 2022, eq. 12).
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def plms(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    variable: Variable = "sigma",
) -> tuple[Tensor, Prediction, Memory]:
    """PLMS (Liu et al. 2022, arXiv 2202.09778, eq. 12; PNDM without its Runge-Kutta start).

    The mean slope comes from up to four eps as if the steps were equal in t, which they are in
    `leading`. The first step has no past and asks the model twice, as Heun does, unless it is the
    last one too.
    """
    if variable != "sigma":
        return over(variable, plms)(denoise, x, interval, memory, draw)
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    known = past_of_equal_steps(prediction, interval, memory)
    slopes = [memo.value for memo in known]
    if len(known) > 1 or interval.index + 1 == interval.count:
        weights = ADAMS_BASHFORTH[len(known) - 1]
    else:
        ahead = torch.add(prediction.x0, prediction.eps, alpha=sigma_next)
        slopes, weights = [prediction.eps, denoise(ahead, sigma_next).eps], (0.5, 0.5)
    slope = sum(weight * eps for weight, eps in zip(weights, slopes, strict=True))
    return x + (sigma_next - sigma) * slope, prediction, tuple(known[:3])


def pndm(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    process: Process = SD_PROCESS,
    variable: Variable = "sigma",
) -> tuple[Tensor, Prediction, Memory]:
    """PNDM with its Runge-Kutta start (Liu et al. 2022, arXiv 2202.09778, algorithm 2).

    The first three steps are pseudo Runge-Kutta (eq. 13), with four evaluations each: the classical
    weights, and stages at the middle of t. Then PLMS has its four eps. The last step is always
    PLMS, as there is no slope at sigma 0. The middle is of t as a real number, kept inside the step
    where the table ends.
    """
    if variable != "sigma":
        along = over(variable, partial(pndm, process=VariancePreserving(Sigmas())))
        return along(denoise, x, interval, memory, draw)
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    known = past_of_equal_steps(prediction, interval, memory)
    if len(known) == len(ADAMS_BASHFORTH) or interval.index + 1 == interval.count:
        return plms(answered(denoise, prediction), x, interval, memory, draw)
    low, high = sorted((sigma, sigma_next))
    t = (process.clock.timestep(sigma) + process.clock.timestep(sigma_next)) / 2
    middle = min(max(process.clock.sigma(t), low), high)
    first = prediction.eps
    second = denoise(torch.add(x, first, alpha=middle - sigma), middle).eps
    third = denoise(torch.add(x, second, alpha=middle - sigma), middle).eps
    fourth = denoise(torch.add(x, third, alpha=sigma_next - sigma), sigma_next).eps
    slope = (first + 2 * second + 2 * third + fourth) / 6
    return x + (sigma_next - sigma) * slope, prediction, tuple(known[:3])


ENTRIES = (
    Entry("pndm", plms, order=2, nfe=1, paper="arXiv 2202.09778", class_name="PNDMScheduler",
          labels=("PNDMScheduler", "plms", "PLMS")),
    Entry("pndm_prk", pndm, order=2, nfe=1, paper="arXiv 2202.09778", class_name="PNDMScheduler",
          start_up=3),
)  # fmt: skip
