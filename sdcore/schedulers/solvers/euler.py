"""First order: Euler, Euler ancestral and DDIM are one step with one number, eta."""

import torch
from torch import Tensor

from sdcore.process import Split, ancestral
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.table_entry import Entry


def euler(
    denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw, *,
    split: Split = ancestral, eta: float = 0.0,
) -> tuple[Tensor, Prediction, Memory]:  # fmt: skip
    """One Euler step; DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12) is the same in this form.

    eta 0: deterministic, the probability flow ODE. eta 1: Euler ancestral, DDIM with eta 1 (DDPM).
    split: how much of a step the noise makes up for; a flow has a rule of its own.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    down, up = split(sigma, sigma_next, eta)
    prediction = denoise(x, sigma)
    x_next = torch.add(prediction.x0, prediction.eps, alpha=down)
    if up > 0:
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=up)
    return x_next, prediction, ()


ENTRIES = (
    Entry("ddim", euler, order=1, nfe=1, paper="arXiv 2010.02502", class_name="DDIMScheduler",
          labels=("DDIMScheduler", "DDIMParallelScheduler", "DDIM"), eta=0.0),
    Entry("euler", euler, order=1, nfe=1, paper="arXiv 2206.00364",
          labels=("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "Euler"), eta=0.0),
    Entry("euler_a", euler, order=1, nfe=1, paper="arXiv 2010.02502",
          class_name="EulerAncestralDiscreteScheduler",
          labels=("EulerAncestralDiscreteScheduler", "euler_ancestral", "Euler a"), eta=1.0,
          stochastic=True),
)  # fmt: skip
