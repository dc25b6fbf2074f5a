"""One run in which a solver is looked at: the sigmas, where on them it starts, and with what x."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from sdcore.lab.worlds import Mixture, denoiser
from sdcore.noise import SeededNoise
from sdcore.sampling import Denoise, Solver, State, Step, sample

EXACT, SINGLE = 1e-12, 1e-6  # of a solver that computes in x's float64, or in float32 whatever x is


@dataclass(frozen=True)
class Setting:
    """Which sigmas, where on them it starts, and with what x."""

    sigmas: tuple[float, ...]  # N + 1
    start: int = 0
    shape: tuple[int, ...] = (2, 1, 3, 3)  # [B,C,H,W]
    seed: int = 0
    name: str = "sigmas"  # of the spacing, for messages
    prediction_type: str | None = None  # what the network says; None: the world itself is asked
    unit: float = EXACT  # what rounding may do to one, step by step

    def __str__(self) -> str:
        return f"{self.name}, N = {len(self.sigmas) - 1}, start {self.start}"

    @property
    def noise(self) -> SeededNoise:
        """The seeds' noise, one for each image: seed, seed + 1 ..."""
        seeds = tuple(range(self.seed, self.seed + self.shape[0]))
        return SeededNoise(seeds, self.shape[1:])

    @property
    def state(self) -> State:
        """Unit noise of the first sigma's size, in float64."""
        return State(self.noise.start().double() * self.sigmas[self.start], self.start)

    def run(
        self, solver: Solver, denoise: Denoise | None = None, state: State | None = None
    ) -> Iterator[Step]:
        """The loop of this setting, by default in the world of a mixture."""
        denoise = Mixture() if denoise is None else denoise
        state = self.state if state is None else state
        if self.prediction_type is not None:
            batch = state.x.shape[0]
            denoise = denoiser(denoise, prediction_type=self.prediction_type, batch=batch)
        return sample(denoise, state, self.sigmas, solver, self.noise)

    def end(self, solver: Solver, denoise: Denoise | None = None) -> Tensor:
        """x at the last sigma."""
        return list(self.run(solver, denoise))[-1].x_next
