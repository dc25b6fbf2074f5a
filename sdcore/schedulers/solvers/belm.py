"""BELM: a two-step rule that can be run backwards, exactly."""

from torch import Tensor

from sdcore.sampling import Denoise, Draw, Interval, Memo, Memory, Prediction
from sdcore.schedulers.solvers.along import Variable, over
from sdcore.schedulers.solvers.integrals import combine
from sdcore.schedulers.table_entry import Entry


def belm(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    variable: Variable = "sigma",
) -> tuple[Tensor, Prediction, Memory]:
    """O-BELM (Wang et al. 2024, arXiv 2410.07273): bidirectional explicit linear multistep.

    With dx/dsigma = eps, steps h and h_last, and r = h / h_last,

        x_next = r^2 x_last + (1 - r^2) x + h (1 + r) eps.

    Solved for x_last it is the same rule the other way, with 1 / r: run over the sigmas upwards and
    then down again it undoes itself (`sdcore.inversion.turned`). The first step is Euler's.
    Remembers the x before.
    """
    if variable != "sigma":
        return over(variable, belm)(denoise, x, interval, memory, draw)
    prediction = denoise(x, interval.sigma)
    h, here = (
        interval.sigma_next - interval.sigma,
        (Memo("x", interval.sigma, x, prediction.origin),),
    )
    last = _last(prediction, interval, memory)
    if last is None:
        return combine(x, [h], [prediction.eps]), prediction, here
    r = h / (interval.sigma - last.sigma)
    x_next = combine(x, [r * r, -r * r, h * (1 + r)], [last.value, x, prediction.eps])
    return x_next, prediction, here


def _last(prediction: Prediction, interval: Interval, memory: Memory) -> Memo | None:
    """The x before this one, on a way that goes on: up or down, by the same guidance."""
    memo = memory[0] if memory else None
    if not isinstance(memo, Memo) or memo.kind != "x" or memo.origin != prediction.origin:
        return None
    onward = (memo.sigma - interval.sigma) * (interval.sigma - interval.sigma_next) > 0
    return memo if onward else None


ENTRIES = (Entry("belm", belm, order=2, nfe=1, paper="arXiv 2410.07273"),)
