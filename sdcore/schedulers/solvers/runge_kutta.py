"""Runge-Kutta methods from their tableaux, in the variable of one's choice.

A method is a file of data (sdcore/schedulers/tableau.py); one of one's own runs by its name:

    sdcore sample "a red house" --scheduler mine.tableau
    sdcore sample "a red house" --scheduler mine.tableau:variable=lambda,rtol=0.01

In Python it is `partial(runge_kutta, tableau=Tableau(((), (1 / 2,)), (0, 1)))`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.keywords import Range
from sdcore.process import to_s
from sdcore.sampling import Denoise, Draw, Interval, Memo, Memory, Prediction
from sdcore.schedulers.solvers.integrals import combine
from sdcore.schedulers.solvers.step_control import Control, Way, integrate
from sdcore.schedulers.table_entry import Entry
from sdcore.schedulers.tableau import TABLEAUX, Tableau


class Variable(NamedTuple):
    """What a method integrates in: u for sigma, y for x, and the slope dy/du of a prediction."""

    u: Callable[[float], float]
    sigma: Callable[[float], float]
    scale: Callable[[float], float]  # y = x * scale(sigma)
    slope: Callable[[Prediction, float], Tensor]
    # f of sigma with df/du = f, where a prediction of constant 1 has the slope f: see `_Step.exact`
    constant: Callable[[float], float] | None = None


def _inverse(sigma: float) -> float:
    return 1 / sigma


def _same(number: float) -> float:
    return number


VARIABLES = {
    # The probability flow dx/dsigma = eps (Karras et al. 2022, arXiv 2206.00364, eq. 1), as it is;
    "sigma": Variable(_same, _same, lambda s: 1.0, lambda p, s: p.eps),
    # in log sigma; and with the integral of a constant eps exact, as DPM-Solver's is;
    "log_sigma": Variable(math.log, math.exp, lambda s: 1.0, lambda p, s: s * p.eps),
    "lambda_eps": Variable(math.log, math.exp, lambda s: 1.0, lambda p, s: s * p.eps, _same),
    # as d(x / sigma) / d(1 / sigma) = x0, which integrates a constant x0 exactly; in lambda =
    # -log sigma, d(x / sigma) / d lambda = x0 / sigma, made so, as DPM-Solver++'s is;
    "data": Variable(_inverse, _inverse, _inverse, lambda p, s: p.x0),
    "lambda": Variable(
        lambda s: -math.log(s), lambda u: math.exp(-u), _inverse, lambda p, s: p.x0 / s, _inverse
    ),
    # along the path of flow matching, x / (1 + sigma) = (1 - s) x0 + s eps, d/ds = eps - x0.
    "s": Variable(
        to_s, lambda u: u / (1 - u), lambda s: 1 / (1 + s), lambda p, s: p.eps - p.x0
    ),
}  # fmt: skip


class _Step:
    """One step from x: the slopes of its stages so far, and where they are."""

    def __init__(self, variable: str, x: Tensor, sigma: float, sigma_next: float) -> None:
        self.way = VARIABLES[variable]
        self.sigma, self.sigma_next = sigma, sigma_next
        self.begin = self.way.u(sigma)
        self.length = self.way.u(sigma_next) - self.begin
        scale = self.way.scale(sigma)
        self.y = x if scale == 1 else x * scale
        self.slopes: list[Tensor] = []
        self.levels: list[float] = []

    def at(self, c: float) -> float:
        """sigma at a share of the step."""
        return self.sigma_next if c == 1 else self.way.sigma(self.begin + c * self.length)

    def add(self, prediction: Prediction, level: float) -> None:
        self.slopes.append(self.way.slope(prediction, level))
        self.levels.append(level)

    def to(self, level: float, row: Sequence[float], shares: Sequence[float]) -> Tensor:
        """x at this sigma, by a row of the tableau."""
        weights = [self.length * a for a in row]
        if self.way.constant is not None:
            weights = self.exact(self.way.constant, weights, level, shares)
        used = [j for j, weight in enumerate(weights) if weight]
        y = combine(self.y, [weights[j] for j in used], [self.slopes[j] for j in used])
        scale = self.way.scale(level)
        return y if scale == 1 else y / scale

    def exact(
        self,
        constant: Callable[[float], float],
        weights: Sequence[float],
        level: float,
        shares: Sequence[float],
    ) -> list[float]:
        """The weights, mended so that a constant prediction is integrated exactly.

        A constant taken from the prediction and from x leaves the flow as it is, so a method may
        run on what is left without losing order (generalised Lawson; Krogstad 2005, Journal of
        Computational Physics 203, section 3). shares: which predictions the constant is made of:
        the first in a stage, all by their b in the step. So the midpoint rule in lambda is
        DPM-Solver++(2S), and in lambda_eps DPM-Solver-2.
        """
        ones = [constant(sigma) for sigma in self.levels]
        rest = constant(level) - constant(self.sigma)
        rest -= math.fsum(w * one for w, one in zip(weights, ones, strict=True))
        parts = zip(weights, shares, ones, strict=True)
        return [w + rest * share / one for w, share, one in parts]


def _run(
    denoise: Denoise, step: _Step, method: Tableau, here: Prediction, iterations: int
) -> Prediction:
    """Ask for the slopes of all stages of the step, and return the last answer.

    A stage that needs its own slope begins with the answer before it and asks `iterations` times:
    the first gives the method the second order, and each one order more, up to its own.
    """
    said = here
    for i, (row, c) in enumerate(zip(method.a, method.c, strict=True)):
        if not row:  # where x is
            step.add(here, step.sigma)
            continue
        level, own = step.at(c), len(row) > i
        for _ in range(iterations if own else 1):
            if own:
                step.add(said, level)
            shares = [1.0, *[0.0] * (len(row) - 1)]
            said = denoise(step.to(level, row, shares), level)
            del step.slopes[i:], step.levels[i:]
        step.add(said, level)
    return said


def runge_kutta(
    denoise: Denoise,
    x: Tensor,
    interval: Interval,
    memory: Memory,
    draw: Draw,
    *,
    tableau: str | Tableau = "rk4",
    variable: Literal["sigma", "log_sigma", "lambda_eps", "data", "lambda", "s"] = "sigma",
    iterations: Annotated[int, Range(0, 100)] = 0,
    rtol: Annotated[float, Range(0, 1)] = 0.0,
    atol: Annotated[float, Range(1e-9, 1)] = 0.0078,
    most_steps: Annotated[int, Range(1, 100_000)] = 1000,
    least_sigma: Annotated[float, Range(1e-6, 1)] = 0.0292,
) -> tuple[Tensor, Prediction, Memory]:
    """The tableau's method. To or from sigma 0, where not every slope is: Euler.

    tableau: a name of `TABLEAUX`, or one's own. variable: of `VARIABLES`.
    iterations: of an implicit stage; 0: as many as its order, one more than that needs. They end
        near the implicit method, and not as stable as it.
    rtol: above 0 the interval is taken in as many steps as the pair's own estimate of the error
        asks for (`step_control`), with atol beside it. Then sigma 0 is reached from least_sigma
        (of SD's training table), and a batch of B asks B times as often. The memory holds the Memo
        "error", [B,C,H,W]: what each value may be off by this interval's steps, as they estimate
        it themselves; and "length", of each picture's next step. Of a pair that `is_blind`, as
        feagin10, the estimate is far too small.
    most_steps: that may be tried in one interval.

    Raises InputError for an unknown tableau, iterations of one that is explicit, and an rtol for
    one that has no embedded method.
    """
    method = _tableau(tableau)
    if iterations and not method.implicit:
        raise InputError("iterations are for implicit tableaux, and this one is explicit")
    if rtol and not method.embedded:
        pairs = ", ".join(name for name, known in TABLEAUX.items() if known.embedded)
        raise InputError(f"rtol needs a tableau with an embedded method: {pairs}")
    run = partial(_run, iterations=iterations if iterations else method.iterations)
    sigma, sigma_next = interval.sigma, interval.sigma_next
    here = denoise(x, sigma)
    least = min(least_sigma, sigma) if sigma_next == 0 else sigma_next
    if rtol and 0 < sigma != least:
        control = Control(rtol, atol, min(method.order, method.embedded_order), most_steps)
        over = EmbeddedPair(variable, method, run, control, sigma, least)
        x_least, found = _controlled(denoise, x, here, over, memory)
        x_next = denoise(x_least, least).x0 if sigma_next == 0 else x_least
        return x_next, here, found
    if sigma_next == 0 or sigma == 0:
        return torch.add(here.x0, here.eps, alpha=sigma_next), here, ()
    step, method = _Step(variable, x, sigma, sigma_next), method.alone
    run(denoise, step, method, here)
    return step.to(sigma_next, method.b, method.b), here, ()


@dataclass(frozen=True)
class EmbeddedPair:
    """Two methods on one set of stages, that carry a picture from sigma to sigma_next in steps as
    long as their difference allows.
    """

    variable: str
    method: Tableau
    run: Callable[[Denoise, _Step, Tableau, Prediction], Prediction]
    control: Control
    sigma: float
    sigma_next: float

    @property
    def way(self) -> Variable:
        """What it steps over: s, lambda, or sigma itself."""
        return VARIABLES[self.variable]

    def level(self, u: float) -> float:
        """sigma at u; at both ends to the bit."""
        for sigma in (self.sigma, self.sigma_next):
            if u == self.way.u(sigma):
                return sigma
        return self.way.sigma(u)

    def pair(
        self, denoise: Denoise, x: Tensor, here: Prediction, u: float, u_next: float
    ) -> tuple[Tensor, Tensor, Prediction | None]:
        """Where both methods carry x [B,C,H,W] from u to u_next: x_next, and the other one.

        And the prediction at x_next, where the last stage has asked for it already.
        """
        step = _Step(self.variable, x, self.level(u), self.level(u_next))
        last = self.run(denoise, step, self.method, here)
        methods = self.method.b, self.method.embedded
        x_next, other = (step.to(step.sigma_next, b, b) for b in methods)
        # With a constant made exact x_next is not the last stage, to the bit.
        reused = self.method.ends_in_a_stage and self.way.constant is None
        return x_next, other, last if reused else None

    def first(self, denoise: Denoise, x: Tensor, here: Prediction) -> float:
        """The length of the first step of all, which asks the model once."""
        way, begin = self.way, self.way.u(self.sigma)
        whole = way.u(self.sigma_next) - begin
        slope, scale = way.slope(here, self.sigma), way.scale(self.sigma)

        def move(length: float) -> float:
            u = begin + math.copysign(min(length, abs(whole)), whole)
            sigma = self.level(u)
            there = torch.add(x * scale, slope, alpha=u - begin) / way.scale(sigma)
            change = way.slope(denoise(there, sigma), sigma) - slope
            return self.control.norm(change / scale, x)

        norm = self.control.norm
        return self.control.first(norm(x, x), norm(slope / scale, x), move)

    def carry(self, denoise: Denoise, x: Tensor, here: Prediction, length: float | None) -> Way:
        """length: of the first step; None where nothing is known yet."""
        length = self.first(denoise, x, here) if length is None else length
        ask = lambda x, u: denoise(x, self.level(u))  # noqa: E731
        begin, end = self.way.u(self.sigma), self.way.u(self.sigma_next)
        pair = partial(self.pair, denoise)
        return integrate(pair, ask, x, here, begin, end, length, self.control)


def _controlled(
    denoise: Denoise, x: Tensor, here: Prediction, over: EmbeddedPair, memory: Memory
) -> tuple[Tensor, Memory]:
    """x [B,C,H,W] at the interval's end, and what was found: each picture by itself."""
    note = (over.variable, float(over.control.order))
    known = [
        memo.value.flatten(1)[:, 0].tolist() for memo in memory
        if memo.kind == "length" and memo.note == note and len(memo.value) == len(x)
    ]  # fmt: skip
    ways = [
        over.carry(
            partial(_one, denoise, i, len(x)),
            x[i : i + 1],
            _row(here, i),
            known[0][i] if known else None,
        )
        for i in range(len(x))
    ]
    errors = torch.cat([way.error for way in ways])
    lengths = torch.cat([torch.full_like(way.error, way.length) for way in ways])
    at = over.sigma_next
    found = Memo("error", at, errors), Memo("length", at, lengths, note=note)
    return torch.cat([way.x for way in ways]), found


def _row(prediction: Prediction, i: int) -> Prediction:
    """Of the i-th picture alone."""
    x0, eps = prediction.x0[i : i + 1], prediction.eps[i : i + 1]
    return replace(prediction, x0=x0, eps=eps)


def _one(denoise: Denoise, i: int, count: int, x: Tensor, sigma: float) -> Prediction:
    """What the model says of one picture [1,C,H,W] under the i-th conditions of its batch."""
    return _row(denoise(x.expand(count, *x.shape[1:]), sigma), i)


def _tableau(given: str | Tableau) -> Tableau:
    if isinstance(given, Tableau):
        return given
    if given not in TABLEAUX:
        raise InputError(f"unknown tableau {given!r}: known are {', '.join(TABLEAUX)}")
    return TABLEAUX[given]


def nfe(tableau: Tableau) -> int:
    """Model evaluations of one step, with as many iterations as there are by default."""
    rows = tableau.alone.a
    implicit = sum(len(row) > i for i, row in enumerate(rows))
    explicit = len(rows) - implicit - (not rows[0])
    return 1 + explicit + implicit * tableau.iterations


def with_tolerance(entry: Entry, options: Mapping[str, Any]) -> Entry:
    """What an entry says of its solver under these options: other things where they have a rtol."""
    if not options.get("rtol"):
        return entry
    function = getattr(entry.solver, "func", entry.solver)
    caution = ""
    if function is runge_kutta and _tableau(options.get("tableau", "rk4")).is_blind:
        caution = (
            f"{entry.name} estimates far less than its error, comparing two slopes at one noise "
            "level: rtol is no bound with it; take tsit5 or verner8"
        )
    return replace(entry, adaptive=True, caution=caution)


OTHERS = ("heun",)  # which have a name of their own in this table

ENTRIES = tuple(
    Entry(name, runge_kutta, order=tableau.order, nfe=nfe(tableau), paper=tableau.source,
          options={"tableau": name}, tableau=f"{name} in sigma")
    for name, tableau in TABLEAUX.items() if name not in OTHERS
)  # fmt: skip
