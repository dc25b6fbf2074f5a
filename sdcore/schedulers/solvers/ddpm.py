"""DDPM: ancestral sampling of the training process itself."""

import math
from typing import Literal

import torch
from torch import Tensor

from sdcore.process import VariancePreserving, ancestral
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.euler import euler
from sdcore.schedulers.table_entry import Entry

Variance = Literal["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"]


def ddpm(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    eta: float = 0.0,
    variance_type: Variance = "fixed_small",
) -> tuple[Tensor, Prediction, Memory]:
    """DDPM (Ho et al. 2020, arXiv 2006.11239, algorithm 2); its mean is eq. 7's.

    variance_type: "fixed_small" is the posterior's variance, and then the step is Euler ancestral
    (DDIM with eta 1); "fixed_large" is beta of the step, the mean unchanged. "_log" after either
    says how code keeps the number, and changes none. No noise into sigma 0.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    down, up = ancestral(sigma, sigma_next, eta)
    if up == 0 or variance_type in ("fixed_small", "fixed_small_log"):
        return euler(denoise, x, interval, memory, draw, eta=eta)
    std = eta * math.sqrt(VariancePreserving.transition_variance(sigma, sigma_next))
    prediction = denoise(x, sigma)
    x_next = torch.add(prediction.x0, prediction.eps, alpha=down)
    return torch.add(x_next, draw(sigma, sigma_next), alpha=std), prediction, ()


ENTRIES = (
    Entry("ddpm", ddpm, order=1, nfe=1, paper="arXiv 2006.11239", class_name="DDPMScheduler",
          labels=("DDPMScheduler", "DDPMParallelScheduler", "DDPM"), eta=1.0, stochastic=True),
)  # fmt: skip
