"""The straight path of flow matching as a schedule: s of 0 to 1, and where its steps are placed.

In the loop's form s = sigma / (1 + sigma), and the network is told t = 1000 s.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from sdcore.errors import InputError
from sdcore.process import RectifiedFlow, to_s
from sdcore.schedulers.noise_schedule import NoiseSchedule

# 1 - s of what stands for pure noise, which has no finite sigma: as diffusers' UniPC has it.
NEAREST = 1e-6


def to_sigma(s: float) -> float:
    """sigma of s in 0 .. 1; pure noise stands at s = 1 - `NEAREST`."""
    s = min(s, 1 - NEAREST)
    return s / (1 - s)


@dataclass(frozen=True)
class Shift:
    """How s is moved towards noise, so that large pictures are not left too little of it.

    shift: k of s' = k s / (1 + (k - 1) s) (Esser et al. 2024, arXiv 2403.03206, eq. 23); of a mu
        that depends on the size, k = e^mu, or mu itself where it is linear. 1: not at all.
    terminal: the last s of a run, to which all are stretched then (diffusers' shift_terminal).

    Raises InputError for a shift that is not finite and above 0, or a terminal not in 0 to 1.
    """

    shift: float = 1.0
    terminal: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise InputError(f"the shift of a flow is a finite number above 0, not {self.shift:g}")
        if self.terminal is not None and not 0 < self.terminal < 1:
            raise InputError(f"the terminal s of a flow is above 0, below 1, not {self.terminal:g}")

    def __call__(self, s: float) -> float:
        """s' = k s / (1 + (k - 1) s)."""
        return self.shift * s / (1 + (self.shift - 1) * s)

    def grid(self, falling: list[float]) -> list[float]:
        """A whole run's s, moved and then stretched."""
        moved = [self(s) for s in falling]
        if self.terminal is None:
            return moved
        scale = (1 - moved[-1]) / (1 - self.terminal)
        if scale == 0:
            raise InputError("one step alone cannot end at a terminal s: take two steps, or none")
        return [1 - (1 - s) / scale for s in moved]


def mu_of(
    tokens: int,
    *,
    base_tokens: int = 256,
    most_tokens: int = 4096,
    base: float = 0.5,
    most: float = 1.15,
) -> float:
    """mu of a picture's size: linear in the tokens that the network sees, base to most.

    As Flux's pipelines compute it; Shift(exp(mu)) is the shift then.

    >>> round(mu_of(1024), 2)
    0.63
    """
    slope = (most - base) / (most_tokens - base_tokens)
    return slope * tokens + base - slope * base_tokens


@dataclass(frozen=True)
class FlowSchedule:
    """The training levels s = 1/T, 2/T ... 1, moved by the shift.

    length: T, as which the network is told s = 1.
    """

    move: Shift = Shift()
    length: int = 1000

    def __len__(self) -> int:
        return self.length

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """s, rising."""
        return tuple(self.move((i + 1) / self.length) for i in range(self.length))

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """sigma of every level, rising; the last stands for pure noise."""
        return tuple(map(to_sigma, self.levels))

    @cached_property
    def log_sigmas(self) -> tuple[float, ...]:
        """Their logarithms."""
        return tuple(map(math.log, self.sigmas))

    @staticmethod
    def spread(sigma: float) -> float:
        """1 + sigma, as of a `RectifiedFlow`."""
        return RectifiedFlow.spread(sigma)

    def sigma(self, t: float) -> float:
        """sigma of a t in 0 .. T, whatever the shift. Raises InputError for another t."""
        if not 0 <= t <= self.length:
            raise InputError(f"timestep {t:g} is not in 0 to {self.length}")
        return to_sigma(t / self.length)

    def timestep(self, sigma: float) -> float:
        """t = T s of a sigma, whatever the shift."""
        return self.length * (1.0 if math.isinf(sigma) else to_s(sigma))


Schedule = NoiseSchedule | FlowSchedule  # what a spacing is laid on, and what sigma <-> t is
