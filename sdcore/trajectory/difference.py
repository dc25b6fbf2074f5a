"""Where two recorded runs part: the first step, how far, and what differs in their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from sdcore.errors import InputError
from sdcore.images import psnr
from sdcore.settings import Settings
from sdcore.trajectory.file import Trajectory
from sdcore.trajectory.geometry import rms

STAGES = ("x", "x0", "eps", "x_next")  # of a step, in the order in which they come about
WHY = {
    "x": "they start apart",
    "x0": "from the same x the predictions part: the model, what it was told, or the guidance",
    "eps": "from the same x the predictions part: the model, what it was told, or the guidance",
    "x_next": "from the same x and prediction the steps part: the solver, its noise, or the sigmas",
}


@dataclass(frozen=True)
class Apart:
    """How far two runs are from each other at one step; the largest over the pictures."""

    step: int  # from 1
    sigma: float
    most: dict[str, float]  # of x, x0, eps and x_next: the largest difference of a value
    rms: dict[str, float]  # the same: the root mean square


@dataclass(frozen=True)
class Difference:
    """What differs between two runs.

    settings: option -> the two values. sigmas: the first index at which the noise levels differ,
    None where they are the same. first: where they part, None where they do not: the step and
    which of "x", "x0", "eps", "x_next". steps: those that both recorded at the same sigma.
    """

    settings: dict[str, tuple[Any, Any]]
    machine: dict[str, tuple[str, str]]
    sigmas: int | None
    first: tuple[int, str] | None
    steps: tuple[Apart, ...]
    end: float  # root mean square between the last latents
    tolerance: float

    @property
    def same(self) -> bool:
        """Whether nothing in them is further apart than the tolerance."""
        return self.first is None and self.sigmas is None and self.end <= self.tolerance


def difference(a: Trajectory, b: Trajectory, tolerance: float = 0.0) -> Difference:
    """What differs between two recorded runs.

    tolerance: the largest difference of a value that is none; 0: every bit counts.

    Raises InputError for runs of other shapes or numbers of pictures.
    """
    if a.x_next.shape != b.x_next.shape:
        shapes = [" x ".join(map(str, each.x_next.shape)) for each in (a, b)]
        raise InputError(f"runs of {shapes[0]} and of {shapes[1]} values cannot be compared")
    if not tolerance >= 0:
        raise InputError(f"the tolerance is at least 0, not {tolerance}")
    steps, first = [], None
    for n, m in _together(a, b):
        held = {**_held(a, n), **{f"{k}'": v for k, v in _held(b, m).items()}}
        both = [name for name in STAGES if name in held and f"{name}'" in held]
        most, far = {}, {}
        for name in both:
            gap = held[name].double() - held[f"{name}'"].double()
            most[name], far[name] = gap.abs().max().item(), rms(gap).max().item()
            if first is None and not most[name] <= tolerance:
                first = (a.moments[n].index + 1, name)
        steps.append(Apart(a.moments[n].index + 1, a.moments[n].sigma, most, far))
    ends = [each.x_next.double() * each.end_scale for each in (a, b)]
    levels = [k for k, pair in enumerate(zip(a.sigmas, b.sigmas, strict=False))
              if pair[0] != pair[1]]  # fmt: skip
    if not levels and len(a.sigmas) != len(b.sigmas):
        levels = [min(len(a.sigmas), len(b.sigmas))]
    return Difference(
        settings=settings_apart(a.settings, b.settings),
        machine={name: (a.machine.get(name, ""), b.machine.get(name, ""))
                 for name in {**a.machine, **b.machine}
                 if a.machine.get(name) != b.machine.get(name)},
        sigmas=levels[0] if levels else None,
        first=first,
        steps=tuple(steps),
        end=rms(ends[0] - ends[1]).max().item(),
        tolerance=tolerance,
    )  # fmt: skip


def _together(a: Trajectory, b: Trajectory) -> list[tuple[int, int]]:
    """The moments of both at the same noise level."""
    there = {moment.sigma: m for m, moment in enumerate(b.moments)}
    return [(n, there[moment.sigma]) for n, moment in enumerate(a.moments)
            if moment.sigma in there]  # fmt: skip


def _held(run: Trajectory, n: int) -> dict[str, Tensor]:
    """What was recorded of a moment; x_next where the next one was recorded too."""
    held = {name: run.tensors[name][n] for name in ("x", "x0", "eps") if name in run.tensors}
    if n + 1 == len(run.moments):
        return {**held, "x_next": run.x_next}
    if run.moments[n + 1].index == run.moments[n].index + 1 and "x" in run.tensors:
        return {**held, "x_next": run.tensors["x"][n + 1]}
    return held


def settings_apart(a: Sequence[Settings], b: Sequence[Settings]) -> dict[str, tuple[Any, Any]]:
    """Option -> the two values, where they differ for some picture: those of the first such."""
    apart: dict[str, tuple[Any, Any]] = {}
    for one, other in zip(a, b, strict=False):
        for each in fields(Settings):
            pair = getattr(one, each.name), getattr(other, each.name)
            if pair[0] != pair[1]:
                apart.setdefault(each.name, pair)
    return apart


def pixels_apart(a: Tensor, b: Tensor) -> tuple[int, float]:
    """Of two images [1,3,H,W] in [-1, 1]: the largest difference of 255, and the PSNR in dB.

    Raises InputError where they are of different sizes.
    """
    if a.shape != b.shape:
        sizes = [f"{each.shape[-1]}x{each.shape[-2]}" for each in (a, b)]
        raise InputError(f"pictures of {sizes[0]} and {sizes[1]} cannot be compared")
    gap = (a.double() - b.double()) / 2
    return round(gap.abs().max().item() * 255), psnr(a, b)
