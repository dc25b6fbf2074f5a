"""DPM-Solver++ singlestep on the schedule's own points: blocks of one, two and three steps."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.dpmpp import dpmpp_factors
from sdcore.schedulers.solvers.integrals import Kind, combine, exact, exponential_weights
from sdcore.schedulers.solvers.past import noted, past
from sdcore.schedulers.table_entry import Entry


def block_weights(
    at: tuple[float, ...], sigma_next: float, solver_type: str, form: Kind
) -> Sequence[float]:
    """Weights of a block's x0 or eps at these sigmas, newest first, in a step from at[-1].

    "heun" integrates the polynomial through all. "midpoint" takes phi_1 / 2 for phi_2 with two
    points, and leaves out the middle one of three.
    """
    weigh = partial(exponential_weights, sigma=at[-1], sigma_next=sigma_next, form=form)
    if solver_type == "heun" or len(at) == 1:
        return weigh(at, rule=exact)
    if len(at) == 2:
        return weigh(at, rule=dpmpp_factors)
    new, start = weigh((at[0], at[-1]), rule=exact)
    return [new, 0.0, start]


def singlestep(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    solver_order: int = 2,
    solver_type: str = "midpoint",
    lower_order_final: bool = True,
    algorithm_type: str = "dpmsolver++",
) -> tuple[Tensor, Prediction, Memory]:
    """DPM-Solver++ singlestep (Lu et al. 2022, arXiv 2211.01095) with grid points as its nodes.

    Steps come in blocks of solver_order; the k-th of a block is the k-th order step from the
    block's start. Here it is a step from x: what the last step did from there is taken back, so
    only the block's x0 are remembered, and the place in it; after another solver a block begins.
    First order into sigma 0, and in a last step that would complete its block, if
    lower_order_final. algorithm_type "dpmsolver": the same of eps (Lu et al. 2022, arXiv
    2206.00927).
    """
    sigma, sigma_next, index = interval.sigma, interval.sigma_next, interval.index
    form: Kind = "eps" if algorithm_type == "dpmsolver" else "x0"
    prediction = denoise(x, sigma)
    known = past(form, prediction, interval, memory, solver_order)
    last = noted(known, "singlestep", solver_type, solver_order)
    place, order = 0 if memory else index % solver_order, 1
    if last:  # its block goes on, or a new one
        place = (int(last[0]) + 1) % solver_order
        order = min(place, int(last[1])) + 1
    if lower_order_final and index + 1 == interval.count and order == solver_order:
        order = 1
    note = ("singlestep", solver_type, solver_order, place, order)
    known = [known[0]._replace(note=note), *known[1:order]]
    if sigma_next == 0:
        return prediction.x0, prediction, tuple(known)
    at = tuple([memo.sigma for memo in known])
    weights = block_weights(at, sigma_next, solver_type, form)
    ratio = sigma_next / sigma if form == "x0" else 1.0
    if order > 1:
        before = block_weights(at[1:], sigma, solver_type, form)
        weights = [b - ratio * a for a, b in zip((0.0, *before), weights, strict=True)]
    return combine(x * ratio, weights, [memo.value for memo in known]), prediction, tuple(known)


ENTRIES = (
    Entry("dpmpp_singlestep", singlestep, order=2, nfe=1, paper="arXiv 2211.01095",
          class_name="DPMSolverSinglestepScheduler", labels=("DPMSolverSinglestepScheduler",)),
)  # fmt: skip
