"""DPM-Solver++: exponential integrators for x0, in lambda = -log sigma."""

import math

import torch
from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.entry import Entry


def dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    lower_order_final: bool = True,
    euler_at_final: bool = False,
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2): second order, one call.

    x_next = e^-h x + (1 - e^-h) D with h = log(sigma / sigma_next) and D = x0 extrapolated by half
    a step. Remembers the last x0. First order where nothing is remembered and into sigma 0, where
    h is infinite; also in the last step if euler_at_final, or lower_order_final and the schedule
    is shorter than 15.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    data, remember = prediction.x0, (prediction.x0,)
    if sigma_next == 0:
        return data, prediction, remember
    last = interval.index + 1 == interval.count
    if memory and not (last and (euler_at_final or (lower_order_final and interval.count < 15))):
        h_last = math.log(interval.sigmas[interval.index - 1] / sigma)
        h = math.log(sigma / sigma_next)
        data = torch.lerp(memory[0], data, 1 + h / (2 * h_last))
    return torch.lerp(data, x, sigma_next / sigma), prediction, remember


ENTRIES = (
    Entry(
        name="dpmpp_2m",
        solver=dpmpp_2m,
        class_name="DPMSolverMultistepScheduler",
        labels=("DPMSolverMultistepScheduler", "DPM++ 2M"),
        order=2,
        nfe=1,
        paper="arXiv 2211.01095",
    ),
)
