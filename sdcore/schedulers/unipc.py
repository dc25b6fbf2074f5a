"""UniPC: predict, and correct with the prediction that the next step needs anyway."""

from collections.abc import Collection, Sequence
from functools import partial
from itertools import zip_longest

from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers.entry import Entry
from sdcore.schedulers.integrals import (
    Form,
    Rule,
    combine,
    exact,
    exponential_weights,
    newest,
    phi,
)


def half(solver_type: str, count: int, z: float) -> list[float]:
    """UniPC's factors: a single unknown is set to 1/2 instead of being solved for.

    The difference of two predictions then has the weight B(h) / 2, where B(h) = h (bh1) or
    h phi_1(z) = e^h - 1 (bh2); with more unknowns B(h) cancels.
    """
    if count != 2:
        return exact(count, z)
    (phi_1,) = phi(1, z)
    return [phi_1, 0.5 if solver_type == "bh1" else phi_1 / 2]


RULES: dict[str, Rule] = {name: partial(half, name) for name in ("bh1", "bh2")}


def correction(at: tuple[float, ...], rule: Rule, form: Form) -> list[float]:
    """Weights of the predictions at these sigmas that correct x at at[0].

    The corrector is the step from at[1] again, with the prediction at at[0] as a node. Both steps
    begin with the same x, so it is enough to add the difference of their weights.
    """
    predicted = exponential_weights(at[1:], at[1], at[0], rule, form)
    corrected = exponential_weights(at, at[1], at[0], rule, form)
    return [b - a for a, b in zip((0.0, *predicted), corrected, strict=True)]


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
    corrected. Remembers what it integrates.
    """
    sigma, sigma_next, index = interval.sigma, interval.sigma_next, interval.index
    form: Form = "x0" if predict_x0 else "eps"
    rule = RULES[solver_type]
    prediction = denoise(x, sigma)
    past = (prediction.x0 if predict_x0 else prediction.eps, *memory)

    def order(at: int, known: int) -> int:
        return min(known, solver_order, interval.count - at if lower_order_final else known)

    change: list[float] = []
    if memory and index - 1 not in disable_corrector:
        at = newest(interval.sigmas, index, order(index - 1, len(memory)) + 1)
        change = correction(at, rule, form)
    remember = past[:solver_order]
    if sigma_next == 0 and predict_x0:
        return past[0], prediction, remember
    if sigma_next == 0:
        ahead: Sequence[float] = (-sigma,)
    else:
        at = newest(interval.sigmas, index, order(index, len(past)))
        ahead = exponential_weights(at, sigma, sigma_next, rule, form)
    ratio = sigma_next / sigma if predict_x0 else 1.0
    total = [ratio * a + b for a, b in zip_longest(change, ahead, fillvalue=0.0)]
    x_next = combine(x * ratio if predict_x0 else x, total, past[: len(total)])
    return x_next, prediction, remember


ENTRIES = (
    Entry(
        name="unipc",
        solver=unipc,
        class_name="UniPCMultistepScheduler",
        labels=("UniPCMultistepScheduler", "UniPC", "uni_pc_bh2"),
        order=2,
        nfe=1,
        paper="arXiv 2302.04867",
    ),
    Entry(
        name="unipc_bh1",
        solver=unipc,
        class_name="UniPCMultistepScheduler",
        order=2,
        nfe=1,
        paper="arXiv 2302.04867",
        options={"solver_type": "bh1"},
    ),
    Entry(
        name="unipc_3",
        solver=unipc,
        class_name="UniPCMultistepScheduler",
        order=2,
        nfe=1,
        paper="arXiv 2302.04867",
        options={"solver_order": 3},
    ),
)
