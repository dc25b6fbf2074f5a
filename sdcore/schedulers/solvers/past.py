"""What a multistep solver has at hand: the prediction here, and those that it remembers."""

from collections.abc import Sequence

from torch import Tensor

from sdcore.sampling import Denoise, Interval, Memo, Memory, Prediction


def past(
    kind: str, prediction: Prediction, interval: Interval, memory: Memory, most: int = 4
) -> list[Memo]:
    """The prediction's x0 or eps, and the remembered ones of its kind, the newest first.

    At most `most`. It does not matter which solver remembered them, on which grid: each says at
    which sigma it was. Left out is what cannot be used: of another origin (guidance), and
    from the first on that does not lie behind the one before.
    """
    origin, sigma = prediction.origin, interval.sigma
    value = prediction.x0 if kind == "x0" else prediction.eps
    found = [Memo(kind, sigma, value, origin)]
    falls = interval.sigma_next <= sigma
    for memo in memory:
        if not isinstance(memo, Memo) or memo.kind != kind or memo.origin != origin:
            continue
        if memo.sigma == sigma or (memo.sigma > sigma) != falls or len(found) == most:
            break
        found.append(memo)
        sigma = memo.sigma
    return found


def past_of_equal_steps(prediction: Prediction, interval: Interval, memory: Memory) -> list[Memo]:
    """The eps at hand, for a solver that takes the steps' lengths for equal.

    What it remembers is of use only where this step is the one that the last one saw coming: at a
    change of grid it is left out. So each Memo notes where the step after its own is to end.
    """
    known = past("eps", prediction, interval, memory)
    if len(known) > 1 and known[1].note != ("ahead", interval.sigma_next):
        known = known[:1]
    ahead = interval.sigmas[min(interval.index + 2, interval.count)]
    return [known[0]._replace(note=("ahead", ahead)), *known[1:]]


def noted(known: Sequence[Memo], *name: str | float) -> list[float]:
    """The numbers that a solver noted of the step that led here, if the note begins with `name`."""
    note = known[1].note if len(known) > 1 else ()
    return [float(number) for number in note[len(name) :]] if note[: len(name)] == name else []


def answered(denoise: Denoise, prediction: Prediction) -> Denoise:
    """The model for a solver's other rule, whose first question has its answer already."""
    answers = [prediction]

    def ask(x: Tensor, sigma: float) -> Prediction:
        return answers.pop() if answers else denoise(x, sigma)

    return ask
