"""What a scheduler will do, in numbers, before anything runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sdcore.errors import InputError
from sdcore.sampling import Prediction, sample
from sdcore.schedulers import TOOLS, Plan, Scheduler, resolve
from sdcore.schedulers.conventions import CLASSES


@dataclass(frozen=True)
class Row:
    """One step."""

    index: int
    timestep: float  # that the network is told
    sigma: float
    sigma_next: float
    h: float  # log(sigma / sigma_next), the step in lambda; infinite into sigma 0
    nfe: int
    draws: int  # of noise, in this step


def rehearse(scheduler: Scheduler, plan: Plan) -> list[Row]:
    """The solver run on a model that sees nothing, to count what it asks for.

    An adaptive solver finds no error there, and may ask for more of a real model.
    """
    still = torch.zeros(1, 1, 1, 1)
    stub = lambda x, sigma: Prediction(still, still)  # noqa: E731
    noise = lambda draw, sigma, sigma_next: still  # noqa: E731
    rows, drawn = [], 0
    for step in sample(stub, still, plan.sigmas, scheduler.solver, noise):
        h = math.log(step.sigma / step.sigma_next) if step.sigma_next else math.inf
        t = plan.timesteps[step.index]
        draws, drawn = step.draws - drawn, step.draws
        rows.append(Row(step.index, t, step.sigma, step.sigma_next, h, step.nfe, draws))
    return rows


# What the other tools call the nearest grid, where they have none of that name; or its nearest.
_NEAREST = {
    "linspace": "normal",
    "leading": "ddim_uniform",
    "ddim_uniform": "normal",
    "trailing": "simple",
    "simple": "normal",
    "sgm_uniform": "normal",
    "lcm": "sgm_uniform",
    "beta_t": "beta",
    "log_linear": "exponential",
    "polyexponential": "exponential",
}
_NEAREST_CLASS = {
    "normal": "linspace",
    "simple": "trailing",
    "sgm_uniform": "trailing",
    "ddim_uniform": "leading",
    "beta_t": "beta",
}
# What diffusers' classes run where a field of their config says so.
_BY_CONFIG = (
    *("pndm_prk", "dpmpp_3m", "dpm_2m", "dpm_3m", "dpmpp_2m_sde", "dpmpp_2m_sde_heun"),
    *("dpmpp_3m_sde", "unipc_bh1", "unipc_3", "deis_3", "euler_churn"),
)
LIKE = ("diffusers", "comfyui", "a1111", "kdiffusion")
_OUR_NOISE = "one CPU generator a picture"  # and so diffusers', given a list of generators


def _nearest(name: str, tool: str) -> str:
    """The tool's spacing of this name, or the nearest that it has. InputError if none is near."""
    has, near = TOOLS[tool].spacings, name
    while near not in has and near in _NEAREST:
        near = _NEAREST[near]
    if near not in has:
        label = TOOLS[tool].label
        raise InputError(f"{label} has no spacing like {name}, only {', '.join(has)}")
    return f"{tool}:{near}"


@dataclass(frozen=True)
class Difference:
    """One thing that a tool would do, in its value and ours."""

    what: str
    ours: float | str
    theirs: float | str


def compare(
    scheduler: Scheduler, steps: int, tool: str, config: Mapping[str, Any] | None = None
) -> list[Difference]:
    """What the tool would do differently with this solver; its spacing of that name or the nearest.

    Restated from what the tools do, not run. Raises InputError where it has no such grid.
    """
    name = scheduler.spacing.name.rpartition(":")[2]
    if scheduler.spacing.steps is not None:
        raise InputError("a list of one's own is the same in every tool: nothing to compare")
    here = scheduler.entry.name
    if tool == "diffusers":
        spacing, noise = f"diffusers:{_NEAREST_CLASS.get(name, name)}", _OUR_NOISE
        known = here in _BY_CONFIG or any(label in CLASSES for label in scheduler.entry.names)
    elif here in TOOLS[tool].by_timestep:
        spacing, known, noise = "diffusers:leading", True, TOOLS[tool].noise
    else:
        spacing, known, noise = _nearest(name, tool), here in TOOLS[tool].has, TOOLS[tool].noise
    own = not scheduler.entry.paper  # a solver of the user's, which no tool has
    other = resolve(scheduler.entry.solver if own else here, spacing, config=config)
    ours, theirs = scheduler.plan(steps), other.plan(steps)
    pairs = list(zip(ours.sigmas[:-1], theirs.sigmas[:-1], strict=True))
    worst = max(range(steps), key=lambda i: abs(pairs[i][0] / pairs[i][1] - 1))
    farthest = max(range(steps), key=lambda i: abs(ours.timesteps[i] - theirs.timesteps[i]))
    found = [
        Difference("scheduler", here, here if known else "none of that kind"),
        Difference("spacing", scheduler.spacing.name, other.spacing.name),
        Difference("first sigma", ours.sigmas[0], theirs.sigmas[0]),
        Difference(f"sigma of step {worst}, the farthest apart", *pairs[worst]),
        Difference(
            f"t of step {farthest}, the farthest apart",
            ours.timesteps[farthest],
            theirs.timesteps[farthest],
        ),
        Difference("last sigma", ours.sigmas[-1], theirs.sigmas[-1]),
        Difference("starting scale", ours.start_scale, theirs.start_scale),
        Difference("scale of the result", ours.end_scale, theirs.end_scale),
        Difference("noise", _OUR_NOISE, noise),
    ]
    return [difference for difference in found if difference.ours != difference.theirs]
