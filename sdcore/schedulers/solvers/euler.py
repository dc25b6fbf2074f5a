"""First order: Euler, Euler ancestral and DDIM are one step with one number, eta."""

import math

import torch
from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.table_entry import Entry


def ancestral(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): step down to the first, add noise of the second.

    sigma_down^2 + sigma_up^2 = sigma_next^2. With eta = 1 this is the posterior's variance of
    DDPM, and eta scales its root (Song et al. 2021, arXiv 2010.02502, eq. 16, in x0 + sigma * eps
    form). No noise on the way up (inversion).
    """
    if eta == 0 or not 0 < sigma_next < sigma:
        return sigma_next, 0.0
    ratio = sigma_next / sigma
    kept = max(1 - eta**2 + (eta * ratio) ** 2, 0.0)  # eta > 1 may ask for more noise than there is
    return sigma_next * math.sqrt(kept), sigma_next * min(eta * math.sqrt(1 - ratio**2), 1.0)


def euler(
    denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw, *, eta: float = 0.0
) -> tuple[Tensor, Prediction, Memory]:
    """One Euler step; DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12) is the same in this form.

    eta 0: deterministic, the probability flow ODE. eta 1: Euler ancestral, DDIM with eta 1 (DDPM).
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    down, up = ancestral(sigma, sigma_next, eta)
    prediction = denoise(x, sigma)
    x_next = torch.add(prediction.x0, prediction.eps, alpha=down)
    if up > 0:
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=up)
    return x_next, prediction, ()


ENTRIES = (
    Entry("ddim", euler, order=1, nfe=1, paper="arXiv 2010.02502", class_name="DDIMScheduler",
          labels=("DDIMScheduler", "DDIMParallelScheduler", "DDIM"), eta=0.0),
    Entry("euler", euler, order=1, nfe=1, paper="arXiv 2206.00364",
          labels=("EulerDiscreteScheduler", "Euler"), eta=0.0),
    Entry("euler_a", euler, order=1, nfe=1, paper="arXiv 2010.02502",
          class_name="EulerAncestralDiscreteScheduler",
          labels=("EulerAncestralDiscreteScheduler", "euler_ancestral", "Euler a"), eta=1.0,
          stochastic=True),
)  # fmt: skip
