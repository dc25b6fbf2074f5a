"""Grids laid over the training timesteps; sigma follows.

linspace, leading and trailing are those of Lin et al. 2024 (arXiv 2305.08891, table 2). The
reference implementations use these words for different grids; what differs is an argument.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from sdcore.errors import InputError
from sdcore.schedulers.flow_schedule import Schedule
from sdcore.schedulers.noise_schedule import NoiseSchedule
from sdcore.schedulers.spacing.beta import quantile
from sdcore.schedulers.spacing.plan import Grid, Rule


def at_timesteps(schedule: Schedule, timesteps: Sequence[float]) -> Grid:
    """The grid of explicit timesteps. Raises InputError where one lies outside the table."""
    return Grid(tuple(map(schedule.sigma, timesteps)), tuple(map(float, timesteps)))


def linspace(schedule: Schedule, steps: int, dtype: torch.dtype = torch.float32) -> Grid:
    """Evenly from the last timestep to 0, both included; fractional, as the dtype holds them.

    diffusers' Euler has them in float32, its DPM++ SDE in float64.
    """
    top = len(schedule) - 1
    stride = top / max(steps - 1, 1)
    rising = [*(i * stride for i in range(steps - 1)), top if steps > 1 else 0]
    return at_timesteps(schedule, torch.tensor(rising[::-1], dtype=dtype).tolist())


def whole_linspace(
    schedule: Schedule, steps: int, *, drop: int = 0, last: int | None = None
) -> Grid:
    """The same rounded to whole timesteps, as in diffusers' DDIM.

    drop=1 lays one point more and leaves out t = 0, as its DPM++ does. last: how many of the
    table's timesteps are used.
    """
    stride = ((len(schedule) if last is None else last) - 1) / max(steps + drop - 1, 1)
    return at_timesteps(schedule, [round(i * stride) for i in range(drop, steps + drop)][::-1])


def leading(
    schedule: Schedule,
    steps: int,
    *,
    offset: int = 1,
    drop: int = 0,
    last: int | None = None,
) -> Grid:
    """Whole strides from t = offset upwards, so the noisiest timesteps are left out.

    drop=1 divides by one step more and starts a stride higher, as diffusers' DPM++ does. last: how
    many of the table's timesteps are used.
    """
    stride = (len(schedule) if last is None else last) // (steps + drop)
    return at_timesteps(schedule, [i * stride + offset for i in range(drop, steps + drop)][::-1])


def trailing(schedule: Schedule, steps: int, *, last: int | None = None) -> Grid:
    """Strides of T / N downwards from the last timestep, rounded; exactly N of them.

    numpy's arange, which diffusers takes, adds up (T - stride) - T, and the rounding of halves
    depends on it; it also yields N + 1 points for some N (61, 103 ...), of which the last, t = -1,
    is dropped here. last: how many of the table's timesteps are used.
    """
    count = float(len(schedule) if last is None else last)
    stride = (count - count / steps) - count
    return at_timesteps(schedule, [round(count + i * stride) - 1.0 for i in range(steps)])


def normal(schedule: Schedule, steps: int) -> Grid:
    """Evenly from the last timestep to 0, fractional, and log sigma linear between whole ones.

    k-diffusion's get_sigmas; `linspace` is linear in sigma itself, and agrees to four digits.
    """
    top = len(schedule) - 1
    return _log_linear(schedule, [top - i * top / max(steps - 1, 1) for i in range(steps)])


def sgm_uniform(schedule: Schedule, steps: int) -> Grid:
    """As `normal` with one point more, of which t = 0 is left out (Stability AI's SGM)."""
    top = len(schedule) - 1
    return _log_linear(schedule, [top - i * top / steps for i in range(steps)])


def simple(schedule: Schedule, steps: int) -> Grid:
    """Strides of T / N downwards from the last timestep, cut to whole ones (ComfyUI)."""
    top, stride = len(schedule) - 1, len(schedule) / steps
    return at_timesteps(schedule, [top - int(i * stride) for i in range(steps)])


def beta_timesteps(schedule: Schedule, steps: int, *, a: float = 0.6, b: float = 0.6) -> Grid:
    """Timesteps at the quantiles of a beta distribution, dense at both ends (ComfyUI's `beta`).

    Lee et al. 2024 (arXiv 2407.12173). Of N + 1 even quantiles the last, t = 0, is left out.
    """
    top = len(schedule) - 1
    return at_timesteps(
        schedule, [round(quantile(1 - i / steps, a, b) * top) for i in range(steps)]
    )


def distilled(schedule: Schedule, steps: int, *, origin: int = 50) -> Grid:
    """N of the `origin` timesteps that a consistency model was distilled on, from the last one.

    LCM (Luo et al. 2023, arXiv 2310.04378, section 4.3) and TCD; fewer than `origin` steps.
    """
    stride = len(schedule) // origin
    picked = [origin - (i * origin) // steps for i in range(steps)]
    return at_timesteps(schedule, [number * stride - 1 for number in picked])


def distilled_evenly(schedule: Schedule, steps: int, *, origin: int = 50) -> Grid:
    """`normal` on the table of those `origin` timesteps alone, both ends included (A1111's LCM).

    The network is told the nearest one of them.
    """
    if not isinstance(schedule, NoiseSchedule):
        raise InputError("A1111's LCM has a spacing of betas; take another for a flow")
    stride = len(schedule) // origin
    known = NoiseSchedule(schedule.alphas_cumprod[stride - 1 :: stride], schedule.dtype)
    sigmas, places = normal(known, steps)
    return Grid(sigmas, tuple(round(place) * stride + stride - 1.0 for place in places))


def _log_linear(schedule: Schedule, timesteps: Sequence[float]) -> Grid:
    """The grid of explicit timesteps with log sigma, not sigma, linear between whole ones."""
    logs = schedule.log_sigmas
    cells = [(min(int(t), len(logs) - 2), t) for t in timesteps]
    sigmas = [math.exp(logs[i] + (t - i) * (logs[i + 1] - logs[i])) for i, t in cells]
    return Grid(tuple(sigmas), tuple(timesteps))


# Every rule by the name of its spacing, and what `sdcore schedulers --spacings` says of it.
RULES: Mapping[str, tuple[Rule, str]] = {
    "leading": (
        leading,
        "whole strides upwards from t = offset; leaves out the noisiest timesteps",
    ),
    "trailing": (trailing, "strides downwards from the last timestep"),
    "linspace": (linspace, "evenly in t, both ends included"),
    "normal": (normal, "evenly in t, fractional, log sigma interpolated (k-diffusion's own)"),
    "simple": (simple, "strides downwards from the last timestep, cut to whole ones (ComfyUI)"),
    "sgm_uniform": (sgm_uniform, "evenly in t, the last timestep in and 0 left out (SGM)"),
    "ddim_uniform": (leading, "leading with offset 1 (ComfyUI)"),
    "beta_t": (beta_timesteps, "t at the quantiles of Beta(0.6, 0.6) (ComfyUI)"),
    "lcm": (distilled, "a subset of the 50 timesteps that LCM and TCD were distilled on"),
}
