"""DEIS: an exponential integrator for eps, in lambda = -log sigma."""

from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.integrals import exponential_step
from sdcore.schedulers.solvers.past import past
from sdcore.schedulers.table_entry import Entry


def deis(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    solver_order: int = 2,
    lower_order_final: bool = True,
) -> tuple[Tensor, Prediction, Memory]:
    """DEIS (Zhang & Chen 2023, arXiv 2204.13902, eq. 15), its polynomials in log sigma ("log rho").

    x_next = x + sum_j C_j eps_j, C_j the integral of the Lagrange polynomial over sigma. Lower
    order in the first steps and, in schedules shorter than 15, in the last ones, if
    lower_order_final. Into sigma 0, infinitely far in log sigma, the Euler step. Remembers eps.
    """
    sigma, sigma_next = interval.sigma, interval.sigma_next
    prediction = denoise(x, sigma)
    known = past("eps", prediction, interval, memory, solver_order)
    remember = tuple(known[: solver_order - 1])
    if sigma_next == 0:
        return prediction.x0, prediction, remember
    left = interval.count - interval.index  # steps, this one included
    order = min(len(known), left) if lower_order_final and interval.count < 15 else len(known)
    return exponential_step(x, known[:order], sigma_next), prediction, remember


ENTRIES = (
    Entry("deis", deis, order=2, nfe=1, paper="arXiv 2204.13902",
          class_name="DEISMultistepScheduler", labels=("DEISMultistepScheduler", "DEIS")),
    Entry("deis_3", deis, order=2, nfe=1, paper="arXiv 2204.13902",
          class_name="DEISMultistepScheduler", options={"solver_order": 3}),
)  # fmt: skip
