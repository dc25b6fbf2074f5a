"""Restart: Heun, and once on the way back up into the noise and down again."""

import math
from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from sdcore.keywords import Range
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.along import Variable, over
from sdcore.schedulers.solvers.heun import heun
from sdcore.schedulers.spacing.sigmas import karras
from sdcore.schedulers.table_entry import Entry


def nearest(sigmas: Sequence[float], wanted: float) -> float:
    """The nonzero one of these sigmas that is nearest to the wanted one."""
    return min((sigma for sigma in sigmas if sigma), key=lambda sigma: abs(sigma - wanted))


def restart(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    variable: Variable = "sigma",
    low: Annotated[float, Range(0, above=True)] = 0.1,
    high: Annotated[float, Range(0, above=True)] = 2.0,
    restarts: Annotated[int, Range(0, 100)] = 1,
    restart_steps: Annotated[int, Range(1, 1000)] = 9,
) -> tuple[Tensor, Prediction, Memory]:
    """Restart (Xu et al. 2023, arXiv 2306.14878, algorithm 1) on Heun's steps.

    Where the schedule comes nearest to sigma `low`, noise is added up to its sigma nearest to
    `high`, and restart_steps Heun steps in Karras' spacing lead down again, `restarts` times. No
    restart where the schedule has nothing above and below.
    """
    down = over(variable, heun)
    x, first, _ = down(denoise, x, interval, memory, draw)
    below = interval.sigma_next
    above = nearest(interval.sigmas, high)
    if below == 0 or below != nearest(interval.sigmas, low) or not below < above:
        return x, first, ()
    sigmas = karras(above, below, restart_steps + 1)
    for _ in range(restarts):
        x = x + draw(above, below) * math.sqrt(above**2 - below**2)
        for i in range(restart_steps):
            step = Interval(sigmas[i], sigmas[i + 1], i, restart_steps, sigmas)
            x, _, _ = down(denoise, x, step, (), draw)
    return x, first, ()


ENTRIES = (
    Entry("restart", restart, order=0, nfe=2, paper="arXiv 2306.14878", labels=("Restart",),
          stochastic=True),
)  # fmt: skip
