"""THE loop: everything that happens between noise and latents.

Noise level: every x is in the form x = x0 + sigma * eps (Karras et al. 2022, arXiv 2206.00364),
where eps has unit variance and sigma is a Python float that falls through the loop. Shapes: B
images, C latent channels, H x W latent pixels.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from sdcore import state_file
from sdcore.errors import InputError
from sdcore.shown import short


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """What the model believes about one x at one sigma; x = x0 + sigma * eps."""

    x0: Tensor  # [B,C,H,W] the picture behind the noise
    eps: Tensor  # [B,C,H,W] the noise, unit variance
    # What it was made of, by branch of the guidance; nothing where a model has none.
    branches: Mapping[str, "Prediction"] = field(default_factory=dict)
    origin: str = ""  # whose it is: a solver puts those of one guidance together

    __repr__ = short


@dataclass(frozen=True, slots=True)
class Interval:
    """One step's piece of the schedule, and all that a solver may know of it."""

    sigma: float  # where x is
    sigma_next: float  # where x_next has to be
    index: int  # 0 .. count - 1
    count: int  # intervals in the whole schedule, also when the loop starts in the middle
    sigmas: Sequence[float]  # the whole schedule, count + 1 entries


class Memo(NamedTuple):
    """One thing that a solver remembers, and enough to know who else can use it, and where."""

    kind: str  # "x0" or "eps" of a prediction; whatever else, under a name of one's own
    sigma: float  # where it was
    value: Tensor  # [B,C,H,W]
    origin: str = ""  # the prediction's
    note: tuple[str | float, ...] = ()  # of the solver, on the step that it took from there


Memory = tuple[Memo, ...]  # what a solver remembers between steps, the newest first; () at first
Denoise = Callable[[Tensor, float], Prediction]  # (x, sigma); may be asked at any sigma
Noise = Callable[[int, float, float], Tensor]  # (draw number, sigma, sigma_next); pure
Draw = Callable[[float, float], Tensor]  # (sigma, sigma_next): the same, numbered by the loop
Solver = Callable[[Denoise, Tensor, Interval, Memory, Draw], tuple[Tensor, Prediction, Memory]]


@dataclass(frozen=True, slots=True, repr=False)
class State:
    """All that is needed to go on from here. `State(x, index=start)` begins in the middle."""

    x: Tensor  # [B,C,H,W]
    index: int = 0  # the interval to run next
    memory: Memory = ()
    draws: int = 0  # noise tensors drawn so far
    sigma: float | None = None  # where x is; None: at sigmas[index], whatever they are

    def onto(self, sigmas: Sequence[float]) -> "tuple[State, tuple[float, ...]]":
        """What `sample` takes to go on over another falling schedule: a state, and its sigmas.

        They begin where x is, and go on with those of `sigmas` that are below. What a solver
        remembers stays: it holds its own sigmas. Raises InputError where x is at no known sigma,
        or there is nothing below it.
        """
        rest = () if self.sigma is None else tuple(s for s in sigmas if s < self.sigma)
        if self.sigma is None or not rest:
            raise InputError(f"nothing to go on with: x is at sigma {self.sigma}")
        placed = tuple(memo for memo in self.memory if isinstance(memo, Memo))
        return replace(self, index=0, memory=placed), (self.sigma, *rest)

    def save(
        self,
        path: str | Path,
        settings: Sequence[str] = (),
        noise: Sequence[state_file.FoundDraw] = (),
        sigmas: Sequence[float] = (),
    ) -> None:
        """Write it whole, with the settings of each picture as JSON (`sdcore.state_file.write`).

        Raises InputError where it cannot be written.
        """
        state_file.write(path, self, settings, noise, sigmas)

    @classmethod
    def load(cls, path: str | Path) -> "State":
        """What `save` wrote, equal to the bit. Raises InputError for what is no such file."""
        held = state_file.read(path)
        memory = tuple(Memo(*memo) for memo in held.memory)
        return cls(held.x, held.index, memory, held.draws, held.sigma)

    __repr__ = short


@dataclass(slots=True, repr=False)
class Step:
    """The record of one step. Assign `x_next` to intervene: the loop reads it back, and only it."""

    index: int
    count: int
    sigma: float
    sigma_next: float
    x: Tensor  # [B,C,H,W] at sigma
    prediction: Prediction  # the first one of this step, at (x, sigma)
    x_next: Tensor  # [B,C,H,W] at sigma_next
    nfe: int  # evaluations of the network for each picture: every branch of every question
    memory: Memory
    draws: int  # noise tensors drawn so far, this step's included
    drawn: tuple[Callable[[], Tensor], ...] = ()  # each of this step, drawn again when called

    __repr__ = short

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("x", "prediction") and hasattr(self, name):
            raise AttributeError(f"step.{name} is what was: assign step.x_next, to go on from it")
        object.__setattr__(self, name, value)

    @property
    def t(self) -> float | None:
        """The time that the network was told; None where the model has none."""
        return getattr(self.prediction.branches, "t", None)

    @property
    def h(self) -> float:
        """log(sigma / sigma_next), the step in lambda; infinite to sigma 0 or from it."""
        sigmas = self.sigma, self.sigma_next
        return math.log(self.sigma / self.sigma_next) if all(sigmas) else math.inf

    @property
    def state(self) -> State:
        """What `sample` takes to go on after this step, with `x_next` as it is now."""
        return State(self.x_next, self.index + 1, self.memory, self.draws, self.sigma_next)


def sample(
    denoise: Denoise,
    start: Tensor | State,
    sigmas: Sequence[float],
    solver: Solver,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """Run the solver over the schedule, one interval at a time, and yield every step.

    denoise: the model, as (x, sigma) -> Prediction.
    start: x [B,C,H,W] at sigmas[0], or a State: of an earlier step to resume, or
        `State(x, index=i)` with x at sigmas[i] for image-to-image.
    sigmas: N + 1 noise levels for N >= 1 steps; not necessarily falling (inversion rises).
    solver: a pure step function; what it remembers it returns.
    noise: where a stochastic solver's noise comes from; deterministic ones never ask.

    Gradients flow through unless the caller switches them off. Raises InputError when the solver
    draws noise and none was given, and for a State whose x is at another sigma.
    """
    state = start if isinstance(start, State) else State(start)
    x, memory, draws = state.x, state.memory, state.draws
    count = len(sigmas) - 1
    if state.sigma is not None and state.sigma != sigmas[min(state.index, count)]:
        raise InputError(
            f"x is at sigma {state.sigma:g} and not at {sigmas[min(state.index, count)]:g}, "
            "where this schedule would go on: take state.onto(sigmas)"
        )

    def ask(x: Tensor, sigma: float) -> Prediction:
        nonlocal nfe
        prediction = denoise(x, sigma)
        nfe += len(prediction.branches) or 1
        return prediction

    def draw(sigma: float, sigma_next: float) -> Tensor:
        nonlocal draws
        if noise is None:
            raise InputError("this solver draws noise: give sample() a noise, e.g. SeededNoise")
        drawn.append(partial(noise, draws, sigma, sigma_next))
        draws += 1
        return drawn[-1]()

    for index in range(state.index, count):
        nfe, drawn = 0, []
        sigma, sigma_next = sigmas[index], sigmas[index + 1]
        interval = Interval(sigma, sigma_next, index, count, sigmas)
        x_next, prediction, memory = solver(ask, x, interval, memory, draw)
        done = (x, prediction, x_next, nfe, memory, draws, tuple(drawn))
        step = Step(index, count, sigma, sigma_next, *done)
        yield step
        x = step.x_next
