"""Second order with a stage in the middle of the step: DPM2, DPM++ 2S and DPM++ SDE.

All three ask the model at the middle of log sigma. DPM2 holds the eps that it says there over the
step, the two others its x0: the tableau `midpoint` in lambda_eps and in lambda (runge_kutta.py).
The ancestral ones aim at sigma_down and make up for it with noise.
"""

import math
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from sdcore.keywords import Range
from sdcore.process import Split, ancestral
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.along import Variable, over
from sdcore.schedulers.table_entry import Entry


def dpm2(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    split: Split = ancestral,
    eta: float = 0.0,
    variable: Variable = "sigma",
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver-2 (Lu et al. 2022, arXiv 2206.00927, algorithm 1) with ancestral noise.

    eta 0: DPM2; 1: DPM2 ancestral. Into sigma_down 0, where the middle is at 0 too, Euler.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    down, up = split(sigma, sigma_next, eta)
    to_down = replace(interval, sigma_next=down)
    x_next, here, _ = over(variable, _dpm2)(denoise, x, to_down, (), draw)
    if up > 0:
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=up)
    return x_next, here, ()


def _dpm2(
    denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
) -> tuple[Tensor, Prediction, Memory]:
    """The step without noise."""
    sigma, down = interval.sigma, interval.sigma_next
    here = denoise(x, sigma)
    slope = here.eps
    if down > 0:
        middle = math.sqrt(sigma * down)
        slope = denoise(torch.add(here.x0, here.eps, alpha=middle), middle).eps
    return torch.add(x, slope, alpha=down - sigma), here, ()


def dpmpp_2s(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    split: Split = ancestral,
    eta: float = 0.0,
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver++(2S) (Lu et al. 2022, arXiv 2211.01095, algorithm 1) with ancestral noise.

    eta 0: DPM++ 2S; 1: DPM++ 2S ancestral.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    down, up = split(sigma, sigma_next, eta)
    here = denoise(x, sigma)
    data = here.x0
    if down > 0:
        middle = math.sqrt(sigma * down)
        data = denoise(torch.add(here.x0, here.eps, alpha=middle), middle).x0
    x_next = torch.lerp(data, x, down / sigma)
    if up > 0:
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=up)
    return x_next, here, ()


def dpmpp_sde(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    eta: float = 0.0,
    r: Annotated[float, Range(0.01, 1)] = 0.5,
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver++ SDE, singlestep, as published with k-diffusion: noise in the middle as well.

    r: where the middle is, as a share of the step in log sigma. eta 0: DPM++ 2S. Two draws a step;
    both begin at sigma, so with Brownian noise the second one contains the first.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    here = denoise(x, sigma)
    if sigma_next == 0:
        return here.x0, here, ()
    middle = sigma ** (1 - r) * sigma_next**r
    down, up = ancestral(sigma, middle, eta)
    x_middle = torch.add(here.x0, here.eps, alpha=down)
    if up > 0:
        x_middle = torch.add(x_middle, draw(sigma, middle), alpha=up)
    data = torch.lerp(here.x0, denoise(x_middle, middle).x0, 1 / (2 * r))
    down, up = ancestral(sigma, sigma_next, eta)
    x_next = torch.lerp(data, x, down / sigma)
    if up > 0:
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=up)
    return x_next, here, ()


EPS_HELD, X0_HELD = "midpoint in lambda_eps", "midpoint in lambda"

ENTRIES = (
    Entry("dpm2", dpm2, order=2, nfe=2, paper="arXiv 2206.00927", tableau=EPS_HELD,
          class_name="KDPM2DiscreteScheduler", labels=("KDPM2DiscreteScheduler", "dpm_2", "DPM2"),
          eta=0.0),
    Entry("dpmpp_2s", dpmpp_2s, order=2, nfe=2, paper="arXiv 2211.01095", labels=("DPM++ 2S",),
          tableau=X0_HELD, eta=0.0),
    Entry("dpm2_a", dpm2, order=2, nfe=2, paper="arXiv 2206.00927", tableau=EPS_HELD,
          class_name="KDPM2AncestralDiscreteScheduler",
          labels=("KDPM2AncestralDiscreteScheduler", "dpm_2_ancestral", "DPM2 a"), eta=1.0,
          stochastic=True),
    Entry("dpmpp_2s_a", dpmpp_2s, order=2, nfe=2, paper="arXiv 2211.01095",
          labels=("dpmpp_2s_ancestral", "DPM++ 2S a"), tableau=X0_HELD, eta=1.0, stochastic=True),
    Entry("dpmpp_sde", dpmpp_sde, order=2, nfe=2, paper="arXiv 2211.01095",
          class_name="DPMSolverSDEScheduler",
          labels=("DPMSolverSDEScheduler", "DPM++ SDE", "dpmpp_sde_gpu"), tableau=X0_HELD, eta=1.0,
          stochastic=True,
          noise="brownian"),
)  # fmt: skip
