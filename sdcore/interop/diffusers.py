"""diffusers: a solver of ours as the scheduler of its pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sdcore.errors import InputError
from sdcore.sampling import Solver
from sdcore.schedulers import Spacing
from sdcore.schedulers.spacing import Rule

if TYPE_CHECKING:
    from sdcore.interop.pipeline_scheduler import PipelineScheduler


def as_diffusers(
    solver: str | Solver | None,
    config: Any,
    spacing: str | Spacing | Rule | None = None,
    eta: float | None = None,
    tail: str | float | None = None,
    noise: str | None = None,
    seeds: Sequence[int] = (),
) -> PipelineScheduler:
    """A solver of ours as a scheduler object for any of diffusers' pipelines.

        pipe.scheduler = as_diffusers("dpmpp_2m", pipe.scheduler.config, spacing="karras")

    solver, spacing, eta, tail: as of `sdcore.schedulers.resolve`.
    config: of the scheduler that the pipeline came with, or that scheduler itself. What it left to
        its class's defaults is not taken over by a solver of another class, as in diffusers' own
        `from_config`.
    noise: as of `prepare`; None takes the solver's.
    seeds: of the noise that the solver draws, one for each picture. Without, it comes from the
        generators of the pipeline's call; those of flow matching do not hand them on.

    The pipeline sees x in its network's form (that of DDIM, or of flow matching), asks its network
    once for each of `timesteps`, and is told one timestep for every question of the solver's: Heun
    has 2 N - 1. So a callback comes after every question, also inside of a step.

    Where a pipeline lays sigmas itself, as those of Flux do, these are taken, moved by the config's
    shift, unless a spacing is given.

    Raises InputError where diffusers is not installed, for what `resolve` refuses, and for a solver
    that a pipeline cannot run: one whose number of questions is not known before, or which raises
    sigma before it asks, or for a config that says neither its class nor its betas.
    """
    if find_spec("diffusers") is None:
        raise InputError("this is a scheduler for diffusers' pipelines: pip install diffusers")
    from sdcore.interop.pipeline_scheduler import PipelineScheduler

    if not isinstance(config, Mapping) and not hasattr(config, "config"):
        raise InputError("give the config of the pipeline's scheduler: pipe.scheduler.config")
    if not isinstance(config, Mapping):
        config = {**config.config, "_class_name": type(config).__name__}
    if "_class_name" not in config and "beta_start" not in config:
        raise InputError(
            "this config says neither its class nor its betas: give the scheduler object instead"
        )
    return PipelineScheduler(solver, config, spacing, eta, tail, noise, tuple(seeds))
