"""The variable that a solver of dx/dsigma = eps integrates in: sigma, or the s of flow matching.

With s = sigma / (1 + sigma) and y = x / (1 + sigma) the same line is y = x0 + s v, dy/ds = v, of
v = eps - x0: again the form that every solver knows, with s for sigma and v for eps. Where a flow
begins, sigma grows without bound and eps in sigma is no polynomial; s ends at 1.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor

from sdcore.process import to_s
from sdcore.sampling import Denoise, Draw, Interval, Memo, Memory, Prediction, Solver

Variable = Literal["sigma", "s"]
KEPT = {"eps": "v", "x": "y"}  # what is remembered along s, by its name in sigma
HERE = {name: kind for kind, name in KEPT.items()}


def over(variable: Variable, solver: Solver) -> Solver:
    """The solver, of which every formula is in sigma, run over the variable.

    It remembers v, under this name, and none of what was remembered of eps. What it draws it must
    draw outside: how much noise there is between two levels is said in sigma.
    """
    if variable == "sigma":
        return solver

    def along_s(
        denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
    ) -> tuple[Tensor, Prediction, Memory]:
        sigmas = {to_s(sigma): sigma for sigma in (interval.sigma, interval.sigma_next)}
        levels = [to_s(sigma) for sigma in interval.sigmas]
        s, s_next = to_s(interval.sigma), to_s(interval.sigma_next)
        y = x / (1 + interval.sigma)
        answers: list[tuple[Prediction, Prediction]] = []  # in sigma, in s

        def ask(at: Tensor, level: float) -> Prediction:
            sigma = sigmas.get(level, level / (1 - level))
            # y itself is x, to the bit: the first question is at (x, sigma)
            answer = denoise(x if at is y and level == s else at * (1 + sigma), sigma)
            answers.append((answer, replace(answer, eps=answer.eps - answer.x0)))
            return answers[-1][1]

        known = [_renamed(memo, HERE, to_s(memo.sigma)) for memo in memory]
        inside = Interval(s, s_next, interval.index, interval.count, levels)
        y_next, said, kept = solver(ask, y, inside, tuple(filter(None, known)), draw)
        first = next(answer for answer, in_s in answers if in_s is said)
        known_at = (*interval.sigmas, *(memo.sigma for memo in memory), interval.sigma)
        at = {to_s(sigma): sigma for sigma in known_at}
        remembered = [_renamed(memo, KEPT, at[memo.sigma]) for memo in kept]
        return y_next * (1 + interval.sigma_next), first, tuple(filter(None, remembered))

    return along_s


def _renamed(memo: Memo, names: Mapping[str, str], sigma: float) -> Memo | None:
    """The memo under another name, at another level; None for what already has such a name."""
    if memo.kind in names.values():
        return None
    return memo._replace(kind=names.get(memo.kind, memo.kind), sigma=sigma)
