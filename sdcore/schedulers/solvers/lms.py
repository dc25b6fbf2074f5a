"""Linear multistep on eps in sigma, with dx/dsigma = eps: LMS, iPNDM, gradient estimation."""

from functools import partial

import torch
from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.along import Variable, over
from sdcore.schedulers.solvers.integrals import adams_weights, combine
from sdcore.schedulers.solvers.past import past, past_of_equal_steps
from sdcore.schedulers.solvers.plms import ADAMS_BASHFORTH
from sdcore.schedulers.table_entry import Entry


def lms(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    order: int = 4,
    variable: Variable = "sigma",
) -> tuple[Tensor, Prediction, Memory]:
    """LMS (Karras et al. 2022's ODE, arXiv 2206.00364, eq. 1): Adams-Bashforth on the true sigmas.

    The polynomial in sigma through the last eps, at most `order` of them, is integrated in closed
    form. It begins with one, so that it converges with second order whatever `order` is. Remembers
    eps.
    """
    if variable != "sigma":
        return over(variable, partial(lms, order=order))(denoise, x, interval, memory, draw)
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    known = past("eps", prediction, interval, memory, order)
    weights = adams_weights([memo.sigma - sigma for memo in known], sigma_next - sigma)
    x_next = combine(x, weights, [memo.value for memo in known])
    return x_next, prediction, tuple(known[: order - 1])


def ipndm(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    uneven: bool = False,
    variable: Variable = "sigma",
) -> tuple[Tensor, Prediction, Memory]:
    """iPNDM (Zhang & Chen 2023, arXiv 2204.13902, section 3.4): PLMS that begins with one eps.

    The weights are those of equal steps. uneven: those of the true sigmas (iPNDM_v), which makes
    it LMS. Into sigma 0 both take the Euler step.
    """
    if variable != "sigma":
        return over(variable, partial(ipndm, uneven=uneven))(denoise, x, interval, memory, draw)
    sigma, sigma_next = interval.sigma, interval.sigma_next
    if uneven and sigma_next != 0:
        return lms(denoise, x, interval, memory, draw)
    prediction = denoise(x, sigma)
    known = past_of_equal_steps(prediction, interval, memory)
    if sigma_next == 0:
        return prediction.x0, prediction, tuple(known[:3])
    length = sigma_next - sigma
    weights = [length * weight for weight in ADAMS_BASHFORTH[len(known) - 1]]
    return combine(x, weights, [memo.value for memo in known]), prediction, tuple(known[:3])


def gradient_estimation(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    gamma: float = 2.0,
    variable: Variable = "sigma",
) -> tuple[Tensor, Prediction, Memory]:
    """Gradient estimation (Permenter & Yuan 2024, arXiv 2306.04848, algorithm 2).

    Euler along gamma eps + (1 - gamma) eps of the last step: gamma 1 is Euler, 3/2 second order on
    equal steps. Into sigma 0 the Euler step.
    """
    if variable != "sigma":
        along = over(variable, partial(gradient_estimation, gamma=gamma))
        return along(denoise, x, interval, memory, draw)
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    known, eps = past_of_equal_steps(prediction, interval, memory), prediction.eps
    if len(known) > 1 and sigma_next != 0:
        eps = torch.lerp(known[1].value, eps, gamma)
    x_next = torch.add(x, eps, alpha=sigma_next - sigma) if sigma_next else prediction.x0
    return x_next, prediction, tuple(known[:1])


ENTRIES = (
    Entry("lms", lms, order=2, nfe=1, paper="arXiv 2206.00364", class_name="LMSDiscreteScheduler",
          labels=("LMSDiscreteScheduler", "LMS")),
    Entry("ipndm", ipndm, order=2, nfe=1, paper="arXiv 2204.13902", labels=("IPNDMScheduler",)),
    Entry("ipndm_v", ipndm, order=2, nfe=1, paper="arXiv 2204.13902", options={"uneven": True}),
    Entry("euler_ge", gradient_estimation, order=1, nfe=1, paper="arXiv 2306.04848",
          labels=("gradient_estimation",)),
)  # fmt: skip
