"""Grids laid over sigma itself; the timestep that the network is told follows.

A curve takes the two ends and N, and gives N falling sigmas; `along` puts it on a training table.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from sdcore.errors import InputError
from sdcore.schedulers.flow_schedule import Schedule
from sdcore.schedulers.spacing.beta import quantile
from sdcore.schedulers.spacing.plan import Grid, Rule

MAX_SIGMA = 2.0**60  # float32 holds its square, with some room

Curve = Callable[[float, float, int], list[float]]  # (highest sigma, lowest, N)


def ramp(high: float, low: float, steps: int) -> list[float]:
    """N values evenly from high to low; high alone for N = 1."""
    stride = (low - high) / max(steps - 1, 1)
    return [high + i * stride for i in range(steps)]


def _ends(high: float, low: float, sigmas: list[float]) -> list[float]:
    """The same with both ends exact, which the power of a root is not: t = 999 stays 999."""
    return [high, *sigmas[1:-1], low][: len(sigmas)]


def karras(high: float, low: float, steps: int, *, rho: float = 7.0) -> list[float]:
    """Evenly in sigma^(1/rho) (Karras et al. 2022, arXiv 2206.00364, eq. 5)."""
    roots = ramp(high ** (1 / rho), low ** (1 / rho), steps)
    return _ends(high, low, [root**rho for root in roots])


def exponential(high: float, low: float, steps: int) -> list[float]:
    """Evenly in log sigma (as in Lu et al. 2022, arXiv 2206.00927, section 3.4)."""
    logs = ramp(math.log(high), math.log(low), steps)
    return _ends(high, low, [math.exp(log) for log in logs])


def polyexponential(high: float, low: float, steps: int, *, rho: float = 1.0) -> list[float]:
    """log sigma falls as a power of an even ramp (k-diffusion); rho 1 is `exponential`."""
    return _ends(high, low, [low * (high / low) ** (r**rho) for r in ramp(1.0, 0.0, steps)])


def beta(high: float, low: float, steps: int, *, a: float = 0.6, b: float = 0.6) -> list[float]:
    """sigma at the quantiles of a beta distribution, dense at both ends (diffusers, A1111).

    Lee et al. 2024 (arXiv 2407.12173) propose these quantiles for t, as `beta_t` has them.
    """
    return [low + quantile(p, a, b) * (high - low) for p in ramp(1.0, 0.0, steps)]


def kl_optimal(high: float, low: float, steps: int) -> list[float]:
    """Evenly in arctan sigma (Sabour et al. 2024, arXiv 2404.14507, eq. 12)."""
    angles = ramp(math.atan(high), math.atan(low), steps)
    return _ends(high, low, [math.tan(angle) for angle in angles])


def linear_quadratic(
    high: float, low: float, steps: int, *, threshold: float = 0.025
) -> list[float]:
    """Half of the steps evenly down to (1 - threshold) high, the others quadratically to 0.

    The quadratic piece goes on with the linear one's slope; low is not used (Mochi 1, ComfyUI).
    """
    linear = steps // 2
    rest = steps - linear
    slope = threshold / linear if linear else 0.0
    start = threshold if linear else 0.0
    bend = (1 - start - slope * rest) / rest**2
    done = [i * slope for i in range(linear)]
    done += [start + slope * i + bend * i * i for i in range(rest)]
    return [high * (1 - each) for each in done]


def without_last(curve: Curve) -> Curve:
    """The same with one point more, of which the last is left out."""
    return lambda high, low, steps: curve(high, low, steps + 1)[:-1]


# Align Your Steps (Sabour et al. 2024, table 2): 11 sigmas for 10 steps.
AYS_SD15 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
AYS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


def align_your_steps(knots: Sequence[float]) -> Curve:
    """The curve through the paper's optimised sigmas, log sigma linear between them.

    The ends are the knots', whatever the table's are. N = 11 visits the knots themselves.
    """
    logs = [math.log(knot) for knot in knots]

    def curve(high: float, low: float, steps: int) -> list[float]:
        where = [(min(int(t), len(logs) - 2), t) for t in ramp(0.0, len(logs) - 1.0, steps)]
        return [math.exp(logs[i] + (t - i) * (logs[i + 1] - logs[i])) for i, t in where]

    return curve


# Every curve by the name of its spacing, and what `sdcore schedulers --spacings` says of it.
CURVES: Mapping[str, tuple[Curve, str]] = {
    "karras": (karras, "evenly in sigma^(1/7) (Karras et al. 2022, eq. 5)"),
    "exponential": (exponential, "evenly in log sigma"),
    "polyexponential": (
        polyexponential,
        "a power of an even ramp in log sigma (k-diffusion; power 1)",
    ),
    "log_linear": (
        without_last(exponential),
        "as exponential, but ends at the least sigma (diffusers' Euler)",
    ),
    "beta": (beta, "sigma at the quantiles of Beta(0.6, 0.6) (diffusers, A1111)"),
    "linear_quadratic": (
        linear_quadratic,
        "half of the steps evenly in sigma down to 0.975 of it, then quadratically (ComfyUI)",
    ),
    "kl_optimal": (kl_optimal, "evenly in arctan sigma, then 0 (ComfyUI)"),
    "ays": (
        without_last(align_your_steps(AYS_SD15)),
        "Align Your Steps' optimised sigmas for SD 1.5",
    ),
    "ays_sdxl": (
        without_last(align_your_steps(AYS_SDXL)),
        "Align Your Steps' optimised sigmas for SDXL",
    ),
}


def along(
    schedule: Schedule,
    steps: int,
    *,
    curve: Curve,
    within: Rule | None = None,
    whole: bool = False,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Grid:
    """The grid of a curve over the training table's range, or that of another rule's grid.

    within: the other rule, as in diffusers' Euler, Heun and LMS. sigma_min and sigma_max override
    either. whole rounds the timestep that the network is told; sigma itself is not rounded.
    """
    base = schedule.sigmas[::-1] if within is None else within(schedule, steps).sigmas
    first = base[0] if sigma_max is None else sigma_max
    last = base[-1] if sigma_min is None else sigma_min
    if math.isinf(first):
        return Grid((first,), (len(schedule) - 1.0,))
    return at_sigmas(schedule, curve(first, last, steps), whole)


def at_sigmas(schedule: Schedule, sigmas: Sequence[float], whole: bool = False) -> Grid:
    """The grid of explicit sigmas. Raises InputError for one that is not above 0 and finite."""
    bad = [sigma for sigma in sigmas if not 0 < sigma <= MAX_SIGMA]
    if bad:
        few = f"a finite sigma above 0 and up to {MAX_SIGMA:.2g}"
        raise InputError(f"a step starts at {few}, not {bad[0]}")
    times = [schedule.timestep(sigma) for sigma in sigmas]
    return Grid(tuple(sigmas), tuple(float(round(t)) if whole else t for t in times))
