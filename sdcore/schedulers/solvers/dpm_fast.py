"""DPM-Solver-3 in every step but the last two."""

import math

import torch
from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.adaptive import dpm_23
from sdcore.schedulers.solvers.midpoint import dpm2
from sdcore.schedulers.table_entry import Entry


def dpm_fast(
    denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver-fast (Lu et al. 2022, arXiv 2206.00927, section 3.4) for NFE divisible by 3.

    Steps of third order (algorithm 2), then one of DPM-Solver-2 and one of Euler; so N steps have
    3 (N - 1) evaluations, which k-diffusion calls n. Its sigmas are even in log sigma and end above
    0. Second order in all, by the last step.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    left = interval.count - interval.index  # steps, this one included
    if left == 2:
        return dpm2(denoise, x, interval, memory, draw)
    here = denoise(x, sigma)
    if left == 1 or sigma_next in (0, sigma):
        return torch.add(here.x0, here.eps, alpha=sigma_next), here, ()

    def ask(x: Tensor, sigma: float) -> Tensor:
        return denoise(x, sigma).eps

    _, x_next = dpm_23(ask, x, here.eps, sigma, math.log(sigma / sigma_next))
    return x_next, here, ()


ENTRIES = (
    Entry("dpm_fast", dpm_fast, order=2, nfe=3, paper="arXiv 2206.00927", labels=("DPM fast",),
          ending=2),
)  # fmt: skip
