"""UniPC: predict, and correct with the prediction that the next step needs anyway."""

from collections.abc import Collection
from functools import lru_cache, partial
from itertools import zip_longest

from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.solvers.integrals import (
    Kind,
    PhiRule,
    combine,
    exact,
    exponential_weights,
    phi,
)
from sdcore.schedulers.solvers.past import noted, past
from sdcore.schedulers.table_entry import Entry


def half(solver_type: str, count: int, z: float) -> list[float]:
    """UniPC's factors: a single unknown is set to 1/2 instead of being solved for.

    The difference of two predictions then has the weight B(h) / 2, where B(h) = h (bh1) or
    h phi_1(z) = e^h - 1 (bh2); with more unknowns B(h) cancels.
    """
    if count != 2:
        return exact(count, z)
    (phi_1,) = phi(1, z)
    return [phi_1, 0.5 if solver_type == "bh1" else phi_1 / 2]


RULES: dict[str, PhiRule] = {name: partial(half, name) for name in ("bh1", "bh2")}


@lru_cache(maxsize=4096)
def step_weights(
    at: tuple[float, ...],
    sigma_next: float,
    corrector: int,
    predictor: int,
    rule: PhiRule,
    form: Kind,
) -> tuple[float, tuple[float, ...]]:
    """(r, w) of the whole step x_next = r x + sum_j w_j p_j, p_j the prediction at sigma at[j].

    The corrector is the last step again, from at[1] to at[0], with the prediction at at[0] as a
    node more. Both begin with the same x, so it is enough to add the difference of their weights.
    From there the predictor goes on, a sum of the same predictions.

    corrector, predictor: their orders; 0: not corrected. Remembered like `exponential_weights`.
    """
    change: tuple[float, ...] = ()
    if corrector:
        nodes = at[: corrector + 1]
        predicted = exponential_weights(nodes[1:], at[1], at[0], rule, form)
        corrected = exponential_weights(nodes, at[1], at[0], rule, form)
        change = tuple(b - a for a, b in zip((0.0, *predicted), corrected, strict=True))
    ratio = sigma_next / at[0] if form == "x0" else 1.0
    if sigma_next > 0:
        ahead = exponential_weights(at[:predictor], at[0], sigma_next, rule, form)
    else:
        ahead = (-at[0],)  # to x0, in terms of eps; with form x0 there is nothing to weigh
    total = zip_longest((ratio * weight for weight in change), ahead, fillvalue=0.0)
    return ratio, tuple(map(sum, total))


def unipc(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    solver_order: int = 2,
    solver_type: str = "bh2",
    predict_x0: bool = True,
    lower_order_final: bool = True,
    disable_corrector: Collection[int] = (),
) -> tuple[Tensor, Prediction, Memory]:
    """UniPC (Zhao et al. 2023, arXiv 2302.04867, algorithms 5 to 8).

    The corrector repeats the last step with the new prediction as one node more; to x it adds the
    difference of the two. Then the predictor: order 1 in the first step and, if lower_order_final,
    falling to 1 in the last ones. Both are sums of the same predictions, so their weights are added
    up first. predict_x0: integrate x0, else eps. disable_corrector: the steps whose result is not
    corrected. Remembers what it integrates, and the order of its last predictor: a step that
    another solver took is not corrected.
    """
    index, count = interval.index, interval.count
    form: Kind = "x0" if predict_x0 else "eps"
    prediction = denoise(x, interval.sigma)
    known = past(form, prediction, interval, memory, solver_order + 1)

    def order(at: int, known: int) -> int:
        return min(known, solver_order, count - at if lower_order_final else known)

    if interval.sigma_next == 0 and predict_x0:
        return prediction.x0, prediction, tuple(known[:solver_order])
    predictor = order(index, len(known))
    corrector, last = 0, noted(known, "unipc", solver_type)
    if last and index - 1 not in disable_corrector and last[0] < len(known):
        corrector = int(last[0])
    at = tuple([memo.sigma for memo in known])
    rule = RULES[solver_type]
    ratio, weights = step_weights(at, interval.sigma_next, corrector, predictor, rule, form)
    values = [memo.value for memo in known[: len(weights)]]
    x_next = combine(x * ratio if predict_x0 else x, weights, values)
    here = known[0]._replace(note=("unipc", solver_type, predictor))
    return x_next, prediction, (here, *known[1:solver_order])


ENTRIES = (
    Entry("unipc", unipc, order=2, nfe=1, paper="arXiv 2302.04867",
          class_name="UniPCMultistepScheduler",
          labels=("UniPCMultistepScheduler", "UniPC", "uni_pc_bh2")),
    Entry("unipc_bh1", unipc, order=2, nfe=1, paper="arXiv 2302.04867",
          class_name="UniPCMultistepScheduler", options={"solver_type": "bh1"}),
    Entry("unipc_3", unipc, order=2, nfe=1, paper="arXiv 2302.04867",
          class_name="UniPCMultistepScheduler", options={"solver_order": 3}),
)  # fmt: skip
