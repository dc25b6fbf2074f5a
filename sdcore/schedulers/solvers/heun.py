"""Second order with two evaluations a step."""

import torch
from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memo, Memory, Prediction
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

    dx/dsigma = eps: the tableau `heun` in sigma. At sigma_next 0 there is no slope to ask for, and
    the Euler step stands.
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


def heunpp(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    variable: Variable = "sigma",
) -> tuple[Tensor, Prediction, Memory]:
    """Heun++, as ComfyUI has it: the slopes of this step's two ends and of the next one's.

    Each later one counts as its sigma's share of the first of all, over their number. The weights
    are no quadrature, so it is of first order; in a few large steps it damps what Heun overshoots.
    Into sigma 0 Euler; before that step, and on the way up (inversion), without the third slope.
    Remembers where it began, which another grid for the rest does not change.
    """
    if variable != "sigma":
        return over(variable, heunpp)(denoise, x, interval, memory, draw)
    sigma, sigma_next = interval.sigma, interval.sigma_next
    here = denoise(x, sigma)
    length, slope = sigma_next - sigma, here.eps
    begun = [memo for memo in memory if memo.kind == "begun"][:1]
    begun = tuple(begun) or (Memo("begun", interval.sigmas[0], x),)
    if sigma_next == 0:
        return torch.add(here.x0, here.eps, alpha=sigma_next), here, begun
    x_next = torch.add(x, here.eps, alpha=length)
    second = denoise(x_next, sigma_next).eps
    beyond = interval.sigmas[min(interval.index + 2, interval.count)]
    if not 0 < beyond < sigma_next < sigma:
        share = min(sigma_next / (2 * begun[0].sigma), 0.5) if length < 0 else 0.5
        return torch.add(x, torch.lerp(slope, second, share), alpha=length), here, begun
    third = denoise(torch.add(x_next, second, alpha=beyond - sigma_next), beyond).eps
    whole = 3 * begun[0].sigma
    slopes = (second - slope) * (sigma_next / whole) + (third - slope) * (beyond / whole)
    return torch.add(x, slope + slopes, alpha=length), here, begun


ENTRIES = (
    Entry("heun", heun, order=2, nfe=2, paper="arXiv 2206.00364", tableau="heun in sigma",
          class_name="HeunDiscreteScheduler",
          labels=("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "Heun")),
    Entry("heunpp2", heunpp, order=1, nfe=3, paper="ComfyUI", labels=("Heun++",), ending=2),
)  # fmt: skip
