"""The shape of a recorded run: how long its vectors are, and how its path bends.

In the form x = x0 + sigma * eps the probability flow is dx / dsigma = eps (Karras et al. 2022,
arXiv 2206.00364, equation 1 with sigma(t) = t), so eps is the direction of the path. Where eps
does not change the path is straight, and one step of Euler is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcore.trajectory.file import Trajectory


@dataclass(frozen=True)
class Shape:
    """One recorded step; means over the pictures. None where it cannot be said."""

    step: int  # from 1
    sigma: float
    t: float | None
    x: float | None  # root mean square of a value
    x0: float | None
    eps: float | None
    x0_moved: float | None  # root mean square of the change in x0 since the step before
    angle: float | None  # degrees between eps here and in the step before
    curvature: float | None  # |change in eps| / |eps|, for each unit of ln sigma


COLUMNS = tuple(each.name for each in fields(Shape))


def shapes(trajectory: Trajectory) -> list[Shape]:
    """The shape of a run, step by step, as far as x, x0 and eps were recorded."""
    held = {name: tensor.double() for name, tensor in trajectory.tensors.items()
            if name in ("x", "x0", "eps")}  # fmt: skip
    return [_shape(trajectory, held, n) for n in range(len(trajectory.moments))]


def _shape(trajectory: Trajectory, held: dict[str, Tensor], n: int) -> Shape:
    moment = trajectory.moments[n]
    sizes = {name: rms(tensor[n]).mean().item() for name, tensor in held.items()}
    moved = angle = curvature = None
    if n and "x0" in held:
        moved = rms(held["x0"][n] - held["x0"][n - 1]).mean().item()
    if n and "eps" in held:
        here, before = held["eps"][n], held["eps"][n - 1]
        cosine = F.cosine_similarity(here.flatten(1), before.flatten(1)).clamp(-1, 1)
        angle = torch.rad2deg(torch.acos(cosine)).mean().item()
        sigma, above = moment.sigma, trajectory.moments[n - 1].sigma
        apart = math.log(above / sigma) if sigma and above else 0.0
        if apart:
            change = rms(here - before) / rms(before).clamp_min(1e-12)
            curvature = (change.mean() / abs(apart)).item()
    return Shape(
        step=moment.index + 1,
        sigma=moment.sigma,
        t=moment.t,
        x=sizes.get("x"),
        x0=sizes.get("x0"),
        eps=sizes.get("eps"),
        x0_moved=moved,
        angle=angle,
        curvature=curvature,
    )


def rms(values: Tensor) -> Tensor:
    """Root mean square of each picture's values: [B,C,H,W] -> [B]."""
    return values.square().flatten(1).mean(1).sqrt()
