"""Solvers of consistency-distilled networks: jump to the picture, then add noise again.

Both speak of training timesteps, so both need the process.
"""

import math
from typing import Annotated

import torch
from torch import Tensor

from sdcore.keywords import Range
from sdcore.process import Process
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.noise_schedule import SD_PROCESS
from sdcore.schedulers.table_entry import Entry

SIGMA_DATA = 0.5  # of the boundary condition


def lcm(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    process: Process = SD_PROCESS,
    timestep_scaling: Annotated[float, Range(0, 1e6, above=True)] = 10.0,
) -> tuple[Tensor, Prediction, Memory]:
    """Multistep latent consistency sampling (Luo et al. 2023, arXiv 2310.04378, algorithm 2).

    x_next = f + sigma_next * noise with f = c_out x0 + c_skip x, x in the network's form; the
    skips are the consistency function's boundary condition at t = 0, and next to nothing above.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    scaled = timestep_scaling * process.clock.timestep(sigma)
    norm = math.hypot(scaled, SIGMA_DATA)
    c_skip = (SIGMA_DATA / norm) ** 2 / process.spread(sigma)
    x_next = torch.add(prediction.x0 * (scaled / norm), x, alpha=c_skip)
    if sigma_next > 0:
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=sigma_next)
    return x_next, prediction, ()


def tcd(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    process: Process = SD_PROCESS,
    eta: float = 0.0,
) -> tuple[Tensor, Prediction, Memory]:
    """Strategic stochastic sampling (Zheng et al. 2024, arXiv 2402.19159, algorithm 2).

    Jump to timestep s = floor((1 - eta) t_next), add noise back up to t_next; eta is the paper's
    gamma. eta 0: DDIM; 1: jump all the way. In the last step s is 0 and no noise follows.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    t_next = process.clock.timestep(sigma_next)
    down = min(process.clock.sigma(math.floor(max(1 - eta, 0) * t_next)), sigma_next)
    if eta == 0 or sigma_next >= sigma:
        down = sigma_next
    x_next = torch.add(prediction.x0, prediction.eps, alpha=down)
    if down < sigma_next:
        up = math.sqrt(sigma_next**2 - down**2)
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=up)
    return x_next, prediction, ()


ENTRIES = (
    Entry("lcm", lcm, order=0, nfe=1, paper="arXiv 2310.04378", class_name="LCMScheduler",
          labels=("LCMScheduler", "LCM"), stochastic=True, keeps_some_x=True),
    Entry("tcd", tcd, order=1, nfe=1, paper="arXiv 2402.19159", class_name="TCDScheduler",
          labels=("TCDScheduler", "TCD"), eta=0.3, stochastic=True),
)  # fmt: skip
