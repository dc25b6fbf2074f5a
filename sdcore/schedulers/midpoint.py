"""Second order with a stage in the middle of the step: DPM2 and DPM++ 2S.

Both ask the model at the middle of log sigma. DPM2 holds the eps that it says there over the step,
DPM++ 2S its x0.
"""

import math

import torch
from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.entry import Entry
from sdcore.schedulers.euler import ancestral


def dpm2(
    denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw, *, eta: float = 0.0
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver-2 (Lu et al. 2022, arXiv 2206.00927, algorithm 1) with ancestral noise.

    eta 0: DPM2; 1: DPM2 ancestral. Into sigma_down 0, where the middle is at 0 too, Euler.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    down, up = ancestral(sigma, sigma_next, eta)
    here = denoise(x, sigma)
    slope = here.eps
    if down > 0:
        middle = math.sqrt(sigma * down)
        slope = denoise(torch.add(here.x0, here.eps, alpha=middle), middle).eps
    x_next = torch.add(x, slope, alpha=down - sigma)
    if up > 0:
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=up)
    return x_next, here, ()


def dpmpp_2s(
    denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw, *, eta: float = 0.0
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver++(2S) (Lu et al. 2022, arXiv 2211.01095, algorithm 1) with ancestral noise.

    eta 0: DPM++ 2S; 1: DPM++ 2S ancestral.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    down, up = ancestral(sigma, sigma_next, eta)
    here = denoise(x, sigma)
    data = here.x0
    if down > 0:
        middle = math.sqrt(sigma * down)
        data = denoise(torch.add(here.x0, here.eps, alpha=middle), middle).x0
    x_next = torch.lerp(data, x, down / sigma)
    if up > 0:
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=up)
    return x_next, here, ()


ENTRIES = (
    Entry(
        name="dpm2",
        solver=dpm2,
        class_name="KDPM2DiscreteScheduler",
        labels=("KDPM2DiscreteScheduler", "dpm_2", "DPM2"),
        order=2,
        nfe=2,
        paper="arXiv 2206.00927",
        eta=0.0,
    ),
    Entry(
        name="dpmpp_2s",
        solver=dpmpp_2s,
        labels=("DPM++ 2S",),
        order=2,
        nfe=2,
        paper="arXiv 2211.01095",
        eta=0.0,
    ),
)
