"""What a scheduler says of itself. Each solver file ends with its entries; the table joins them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sdcore.sampling import Solver


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One scheduler: its names, its solver and what the solver claims."""

    name: str  # ours
    solver: Solver
    class_name: str = "EulerDiscreteScheduler"  # diffusers' class whose spacing it follows
    labels: tuple[str, ...] = ()  # every other name: diffusers', k-diffusion's, ComfyUI's, A1111's
    order: int  # of convergence with the noise switched off; 0: none is claimed
    nfe: int  # model evaluations a step; the first ones or the last may differ
    paper: str
    options: Mapping[str, Any] = field(default_factory=dict)  # bound into the solver for this name
    eta: float | None = None  # how much noise a step, by default; None where there is no choice
    stochastic: bool = False  # draws noise with its default options
    noise: Literal["independent", "brownian"] = "independent"  # how its draws hang together

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.labels)
