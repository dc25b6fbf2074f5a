"""What a foreign method was told in earlier steps of a run, kept in the memory of our solver."""

from collections.abc import Sequence

from torch import Tensor

from sdcore.sampling import Interval, Memo, Memory

Told = list[Memo]  # of one step, in the order of events


def note(
    who: str, what: str, sigma: float, value: Tensor, origin: str, interval: Interval, *more: float
) -> Memo:
    """One event of this step: `what` the method of this name was told, or said itself."""
    return Memo(f"{who} {what}", sigma, value, origin, (interval.index, interval.count, *more))


def kept(steps: Sequence[Told]) -> Memory:
    """The memory of these steps, of which the first comes first."""
    return tuple(memo for told in reversed(steps) for memo in reversed(told))


def steps_before(who: str, memory: Memory, interval: Interval, origin: str) -> list[Told]:
    """The steps that led here one after the other over this schedule, the first of them first.

    Each begins with a memo of `x`, where the step began. Left out is what was told under another
    guidance, and what lies before a step that is missing.
    """
    steps: dict[int, Told] = {}
    for memo in reversed(memory):
        same = memo.kind.startswith(f"{who} ") and memo.origin == origin
        if same and memo.note[1] == interval.count:
            steps.setdefault(int(memo.note[0]), []).append(memo)
    usable: list[Told] = []
    for index in range(interval.index - 1, -1, -1):
        told = steps.get(index)
        if told is None or values(told, "x")[0].sigma != interval.sigmas[index]:
            break
        usable.insert(0, told)
    return usable


def values(told: Sequence[Memo], what: str) -> list[Memo]:
    """The events of this kind."""
    return [memo for memo in told if memo.kind.endswith(f" {what}")]
