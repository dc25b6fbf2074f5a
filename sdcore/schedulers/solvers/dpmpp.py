"""DPM-Solver++ and DPM-Solver: exponential integrators for x0 or eps, in lambda = -log sigma."""

import math

import torch
from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.integrals import Kind, exact, exponential_step, phi
from sdcore.schedulers.solvers.midpoint import dpmpp_2s
from sdcore.schedulers.solvers.past import answered, past
from sdcore.schedulers.table_entry import Entry


def dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    lower_order_final: bool = True,
    euler_at_final: bool = False,
    solver_type: str = "midpoint",
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2): second order, one call.

    x_next = e^-h x + (1 - e^-h) D with h = log(sigma / sigma_next) and D = x0 extrapolated by half
    a step. Remembers the last x0. First order where nothing is remembered and into sigma 0, where
    h is infinite; also in the last step if euler_at_final, or lower_order_final and the schedule
    is shorter than 15. solver_type "heun" weighs the last x0 as in `res_multistep`.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    known = past("x0", prediction, interval, memory, 2)
    data, remember = prediction.x0, tuple(known[:1])
    if sigma_next == 0:
        return data, prediction, remember
    last = interval.index + 1 == interval.count
    first = last and (euler_at_final or (lower_order_final and interval.count < 15))
    if len(known) > 1 and not first:
        h_last = math.log(known[1].sigma / sigma)
        h = math.log(sigma / sigma_next)
        if solver_type == "heun":
            return exponential_step(x, known, sigma_next), prediction, remember
        data = torch.lerp(known[1].value, data, 1 + h / (2 * h_last))
    return torch.lerp(data, x, sigma_next / sigma), prediction, remember


def res_multistep(
    denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
) -> tuple[Tensor, Prediction, Memory]:
    """RES multistep (Zhang et al. 2023, arXiv 2308.02157): the exact integral of a line through x0.

    DPM-Solver++(2M) replaces phi_2 by phi_1 / 2 there, which is the same to second order. It is
    also exponential Adams-Bashforth of order 2. First order without memory and into sigma 0.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    known = past("x0", prediction, interval, memory, 2)
    if sigma_next == 0:
        return prediction.x0, prediction, tuple(known[:1])
    return exponential_step(x, known, sigma_next), prediction, tuple(known[:1])


def dpmpp_factors(count: int, z: float) -> list[float]:
    """DPM-Solver++'s factors: phi_1 / 2 for phi_2 at second order, phi_3 for 2 phi_3 at third."""
    phi_1, *others = phi(count, z)
    return [phi_1, phi_1 / 2] if count == 2 else [phi_1, *others]


def dpmpp_3m(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    most: int = 3,
    form: Kind = "x0",
    lower_order_final: bool = True,
    euler_at_final: bool = False,
    solver_type: str = "midpoint",
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver++(3M) as published in code: a parabola through x0, its curvature halved.

    All implementations multiply phi_3 by the second divided difference, which is half the second
    derivative of Taylor's formula; so it converges with second order, like 2M, with a fifth of
    2M's error constant. `dpmpp_3m_taylor` has the factor 2. Order 1 and 2 in the first steps and,
    in schedules shorter than 15, in the last ones, if lower_order_final. solver_type: of the steps
    of second order, as in `dpmpp_2m`.

    form "eps": DPM-Solver (Lu et al. 2022, arXiv 2206.00927), the same of eps. most: the order.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    known = past(form, prediction, interval, memory, most)
    remember = tuple(known[: most - 1])
    left = interval.count - interval.index  # steps, this one included
    order = min(len(known), left) if lower_order_final and interval.count < 15 else len(known)
    if sigma_next == 0 or (left == 1 and euler_at_final):
        order = 1
    if sigma_next == 0:
        return prediction.x0, prediction, remember
    rule = phi if solver_type == "heun" else dpmpp_factors
    return exponential_step(x, known[:order], sigma_next, rule), prediction, remember


def dpmpp_3m_taylor(
    denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
) -> tuple[Tensor, Prediction, Memory]:
    """Third-order DPM-Solver++ multistep with the full curvature: the exact integral of a parabola.

    Exponential Adams-Bashforth of order 3 (Hochbruck & Ostermann 2010, section 2.5). A first-order
    start would leave an error of second order for good, so the first step of several is
    `dpmpp_2s`, with two calls. First order into sigma 0.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    known = past("x0", prediction, interval, memory, 3)
    if sigma_next == 0:
        return prediction.x0, prediction, tuple(known[:2])
    if len(known) == 1 and interval.index + 1 < interval.count:
        x_next, _, _ = dpmpp_2s(answered(denoise, prediction), x, interval, (), draw)
        return x_next, prediction, tuple(known)
    return exponential_step(x, known, sigma_next, exact), prediction, tuple(known[:2])


ENTRIES = (
    Entry("dpmpp_2m", dpmpp_2m, order=2, nfe=1, paper="arXiv 2211.01095",
          class_name="DPMSolverMultistepScheduler",
          labels=("DPMSolverMultistepScheduler", "DPM++ 2M")),
    Entry("dpmpp_3m", dpmpp_3m, order=2, nfe=1, paper="arXiv 2211.01095",
          class_name="DPMSolverMultistepScheduler", labels=("DPM++ 3M",)),
    Entry("dpm_2m", dpmpp_3m, order=2, nfe=1, paper="arXiv 2206.00927",
          class_name="DPMSolverMultistepScheduler", options={"most": 2, "form": "eps"}),
    Entry("dpm_3m", dpmpp_3m, order=2, nfe=1, paper="arXiv 2206.00927",
          class_name="DPMSolverMultistepScheduler", options={"form": "eps"}),
    Entry("dpmpp_3m_taylor", dpmpp_3m_taylor, order=3, nfe=1, paper="arXiv 2211.01095",
          class_name="DPMSolverMultistepScheduler", starts_higher=True),
    Entry("res_multistep", res_multistep, order=2, nfe=1, paper="arXiv 2308.02157"),
)  # fmt: skip
