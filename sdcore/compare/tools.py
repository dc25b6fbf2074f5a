"""What another tool would do differently with a scheduler. Restated from the tools, not run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdcore.errors import InputError
from sdcore.schedulers import TOOLS, Scheduler, resolve
from sdcore.schedulers.conventions import CONVENTIONS

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
_OUR_NOISE = "one CPU generator a picture"
# Where a tool's noise comes from.
_NOISE = {
    "diffusers": _OUR_NOISE,  # given a list of generators
    "kdiffusion": "torch.randn_like on x's device, one stream for the whole batch",
    "a1111": "one generator a picture, on the GPU (Philox) or the CPU, by a setting",
    "comfyui": "one CPU generator for the start; the loop's is seeded again, on x's device",
}
# Schedulers that a tool runs by timestep, which is diffusers' `leading`; its others run by sigma.
_BY_TIMESTEP = {"a1111": ("ddim", "pndm")}


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


def differences(
    scheduler: Scheduler, steps: int, tool: str, config: Mapping[str, Any] | None = None
) -> list[Difference]:
    """What the tool would do differently with this solver; its spacing of that name or the nearest.

    tool: one of `sdcore.compare.TOOLS`. Raises InputError where it has no such grid.
    """
    name = scheduler.spacing.name.rpartition(":")[2]
    if scheduler.spacing.steps is not None:
        raise InputError("a list of one's own is the same in every tool: nothing to compare")
    here = scheduler.entry.name
    if tool == "diffusers":
        spacing = f"diffusers:{_NEAREST_CLASS.get(name, name)}"
        known = here in _BY_CONFIG or any(label in CONVENTIONS for label in scheduler.entry.names)
    elif here in _BY_TIMESTEP.get(tool, ()):
        spacing, known = "diffusers:leading", True
    else:
        spacing, known = _nearest(name, tool), here in TOOLS[tool].has
    users = not scheduler.entry.paper  # a solver of the user's, which no tool has
    other = resolve(scheduler.entry.solver if users else here, spacing, config=config)
    ours, theirs = scheduler.plan(steps), other.plan(steps)
    pairs = list(zip(ours.sigmas[:-1], theirs.sigmas[:-1], strict=True))
    worst = max(range(steps), key=lambda i: abs(pairs[i][0] / pairs[i][1] - 1))
    farthest = max(range(steps), key=lambda i: abs(ours.timesteps[i] - theirs.timesteps[i]))
    everything = [
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
        Difference("noise", _OUR_NOISE, _NOISE[tool]),
    ]
    return [difference for difference in everything if difference.ours != difference.theirs]
