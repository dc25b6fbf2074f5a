"""DPM-Solver++ SDE, multistep: x0 extrapolated from the past, the linear part and the noise exact.

The members differ in how they weigh the past, and in nothing else. eta is the share of the reverse
SDE's noise: 0 is the probability flow, 1 the reverse SDE of training.
"""

import torch
from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.integrals import PhiRule, exact, exponential_step, noise_std, phi
from sdcore.schedulers.solvers.midpoint import dpmpp_2s
from sdcore.schedulers.solvers.past import answered, past
from sdcore.schedulers.table_entry import Entry


def midpoint(count: int, z: float) -> list[float]:
    """x0 at the middle of the step stands for all of it."""
    return [phi(1, z)[0], phi(1, z)[0] / 2][:count]


def divided_differences(count: int, z: float) -> list[float]:
    """3M as in code: its curvature is a divided difference, half the second derivative."""
    return phi(count, z)


def multistep(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    eta: float,
    order: int,
    rule: PhiRule,
) -> tuple[Tensor, Prediction, Memory]:
    """One step through the last `order` x0, fewer while fewer are known. Into sigma 0, x0."""
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    known = past("x0", prediction, interval, memory, 3)
    if sigma_next == 0:
        return prediction.x0, prediction, tuple(known[:2])
    if sigma_next == sigma:  # a tail that repeats the last sigma
        return x, prediction, tuple(known[:2])
    x_next = exponential_step(x, known[:order], sigma_next, rule, eta)
    std = noise_std(sigma, sigma_next, eta)
    if std > 0:
        x_next = torch.add(x_next, draw(sigma, sigma_next), alpha=std)
    return x_next, prediction, tuple(known[:2])


def dpmpp_2m_sde(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    eta: float = 0.0,
    solver_type: str = "midpoint",
    lower_order_final: bool = True,
    euler_at_final: bool = False,
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver++(2M) SDE (Lu et al. 2022, arXiv 2211.01095, appendix B).

    solver_type: "heun" integrates the line through x0 exactly; else the midpoint rule, which with
    eta 0 is DPM-Solver++(2M). First order in the last step if euler_at_final, or lower_order_final
    and the schedule is shorter than 15.
    """
    last = interval.index + 1 == interval.count
    first = last and (euler_at_final or (lower_order_final and interval.count < 15))
    rule = exact if solver_type == "heun" else midpoint
    return multistep(denoise, x, interval, memory, draw, eta, 1 if first else 2, rule)


def dpmpp_3m_sde(
    denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw, *, eta: float = 0.0
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver++(3M) SDE as published with k-diffusion: second order.

    Its curvature has half the weight of Taylor's formula, so the third order is not reached;
    at 20 to 80 steps its error is often the smaller one all the same.
    """
    return multistep(denoise, x, interval, memory, draw, eta, 3, divided_differences)


def dpmpp_3m_sde_taylor(
    denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw, *, eta: float = 0.0
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver++(3M) SDE with the whole curvature: third order where eta is 0.

    A first-order start would leave an error of second order for good, so the first step is
    `dpmpp_2s`, with two calls, as in `dpmpp_3m_taylor`.
    """
    prediction = denoise(x, interval.sigma)
    known, ask = past("x0", prediction, interval, memory, 3), answered(denoise, prediction)
    if len(known) == 1 and interval.sigma_next > 0:
        x_next, _, _ = dpmpp_2s(ask, x, interval, (), draw, eta=eta)
        return x_next, prediction, tuple(known)
    return multistep(ask, x, interval, memory, draw, eta, 3, exact)


ENTRIES = (
    Entry("dpmpp_2m_sde", dpmpp_2m_sde, order=2, nfe=1, paper="arXiv 2211.01095",
          class_name="DPMSolverMultistepScheduler", labels=("DPM++ 2M SDE", "dpmpp_2m_sde_gpu"),
          eta=1.0, stochastic=True, noise="brownian"),
    Entry("dpmpp_2m_sde_heun", dpmpp_2m_sde, order=2, nfe=1, paper="arXiv 2211.01095",
          class_name="DPMSolverMultistepScheduler",
          labels=("DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun_gpu"), options={"solver_type": "heun"},
          eta=1.0, stochastic=True, noise="brownian"),
    # ComfyUI's: at eta 1 its way to sigma_down and the noise after it are this very step
    Entry("res_multistep_a", dpmpp_2m_sde, order=2, nfe=1, paper="arXiv 2308.02157",
          labels=("res_multistep_ancestral",),
          options={"solver_type": "heun", "lower_order_final": False}, eta=1.0, stochastic=True),
    Entry("dpmpp_3m_sde", dpmpp_3m_sde, order=2, nfe=1, paper="arXiv 2211.01095",
          class_name="DPMSolverMultistepScheduler", labels=("DPM++ 3M SDE", "dpmpp_3m_sde_gpu"),
          eta=1.0, stochastic=True, noise="brownian"),
    Entry("dpmpp_3m_sde_taylor", dpmpp_3m_sde_taylor, order=3, nfe=1, paper="arXiv 2211.01095",
          class_name="DPMSolverMultistepScheduler", eta=1.0, stochastic=True, noise="brownian",
          starts_higher=True),
)  # fmt: skip
