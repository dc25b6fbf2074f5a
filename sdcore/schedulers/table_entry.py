"""What a scheduler says of itself. Each solver file ends with its entries; the table joins them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sdcore.sampling import Solver


@dataclass(frozen=True)
class Entry:
    """One scheduler: its names, its solver and what the solver claims."""

    name: str  # ours
    solver: Solver
    order: int  # of convergence with the noise switched off; 0: none is claimed
    nfe: int  # model evaluations a step, between start_up and ending
    paper: str
    labels: tuple[str, ...] = ()  # every other name: diffusers', k-diffusion's, ComfyUI's, A1111's
    class_name: str = "EulerDiscreteScheduler"  # diffusers' class whose conventions it follows
    options: Mapping[str, Any] = field(default_factory=dict)  # bound into the solver for this name
    eta: float | None = None  # how much noise a step, by default; None where there is no choice
    stochastic: bool = False  # draws noise with its default options
    noise: Literal["independent", "brownian"] = "independent"  # how its draws hang together
    start_up: int = 1  # steps at the start that may take another number of evaluations
    ending: int = 1  # and at the end
    # What it does otherwise than most; the laws allow for it.
    raises_first: bool = False  # its first question is at a raised sigma, not at (x, sigma)
    starts_higher: bool = False  # more evaluations in the first step, also where it is the last
    # LCM's c_skip x, 3e-4 of x at sigma 0.04 (Luo et al. 2023, eq. 9), is left at sigma 0.
    keeps_some_x: bool = False
    tableau: str = ""  # what it is with its noise off: "midpoint in lambda" of runge_kutta.py
    adaptive: bool = False  # chooses steps of its own by an estimate of its error
    caution: str = ""  # a line for whoever draws with it

    @property
    def names(self) -> tuple[str, ...]:
        """All that it is called, ours first."""
        return (self.name, *self.labels)
