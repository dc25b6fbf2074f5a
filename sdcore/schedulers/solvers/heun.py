"""Second order with two evaluations a step."""

import torch
from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.along import Variable, over
from sdcore.schedulers.table_entry import Entry


def heun(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    variable: Variable = "sigma",
) -> tuple[Tensor, Prediction, Memory]:
    """Heun's method (Karras et al. 2022, arXiv 2206.00364, algorithm 1): Euler, then mean slope.

    dx/dsigma = eps. At sigma_next 0 there is no slope to ask for, and the Euler step stands.
    variable: what is integrated over; "s" for flow matching.
    """
    if variable != "sigma":
        return over(variable, heun)(denoise, x, interval, memory, draw)
    sigma, sigma_next = interval.sigma, interval.sigma_next
    here = denoise(x, sigma)
    x_next = torch.add(here.x0, here.eps, alpha=sigma_next)
    if sigma_next == 0:
        return x_next, here, ()
    there = denoise(x_next, sigma_next)
    x_next = torch.add(x_next, there.eps - here.eps, alpha=(sigma_next - sigma) / 2)
    return x_next, here, ()


ENTRIES = (
    Entry("heun", heun, order=2, nfe=2, paper="arXiv 2206.00364",
          class_name="HeunDiscreteScheduler",
          labels=("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "Heun")),
)  # fmt: skip
