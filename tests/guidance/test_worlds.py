"""Each guidance between worlds of Gaussians, where the law of its pictures is known.

A Gaussian world answers x with numbers that are linear in x. So the values of one picture stay
x = a + b z, where z is the pattern that it started with, of mean 0 and mean square q, and the two
numbers a and b follow an equation of their own. It is written out here by the papers' formulas on
such pairs (a, b), without tensors, and solved on a finer grid.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from sdcore.denoiser import Denoiser
from sdcore.guidance import (
    APG,
    CFG,
    PAG,
    SEG,
    Autoguidance,
    CFGPlusPlus,
    CFGZeroStar,
    Composed,
    Interval,
    PerpNeg,
    Rescale,
    SkippedLayers,
    Sum,
    Threshold,
    Varying,
)
from sdcore.lab import Gaussian, Mixture
from sdcore.lab.worlds import IN_SIGMA
from sdcore.sampling import sample
from sdcore.schedulers import resolve as scheduler_named

START = torch.linspace(-12, 12, 64, dtype=torch.float64).reshape(1, 1, 8, 8)
TOP, LOW = 10.0, 0.05
GRID = [TOP * (LOW / TOP) ** (i / 200) for i in range(201)]
WINDOW = (0.3, 2.0)
A, B, C = Gaussian(0.8, 0.5), Gaussian(-0.2, 0.5), Gaussian(0.5, 0.5)
NARROW, WIDE = Gaussian(0.8, 0.3), Gaussian(-0.2, 0.9)


def in_worlds(guidance, **worlds):
    """The guidance in a world for each branch; each of them is exact."""
    told = {"nobody": {"context": torch.zeros(1)}}
    return Denoiser(lambda *_, **__: None, IN_SIGMA, told, guidance, networks=worlds)


def ends(guidance, worlds, grid=GRID, solver="rk4"):
    denoise = in_worlds(guidance, **worlds)
    return list(sample(denoise, START, grid, scheduler_named(solver).solver))[-1].x_next


# Sums: the guided law is a Gaussian too

SUMS = [
    (CFG(3.0), {"cond": A, "uncond": B}, -0.2 + 3 * 1.0),
    (Autoguidance(2.0), {"cond": A, "weak": C}, 0.5 + 2 * 0.3),
    (PAG(2.0), {"cond": A, "perturbed": C}, 0.8 + 2 * 0.3),
    (SEG(1.0), {"cond": A, "smoothed": C}, 0.8 + 0.3),
    (SkippedLayers(1.0), {"cond": A, "skipped": C}, 0.8 + 0.3),
    (Composed(2.0, ("c",), (1.0, 0.5)), {"cond": A, "uncond": B, "cond 2": C}, -0.2 + 2 * 1.35),
    (Sum((CFG(3.0), PAG(2.0))), {"cond": A, "uncond": B, "perturbed": C}, 2.8 + 0.6),
    (PerpNeg(3.0, 0.0), {"cond": A, "empty": B}, 2.8),
    (Rescale(CFG(3.0), 0.7), {"cond": A, "uncond": B}, 2.8),  # of equal spread: nothing to do
    (Threshold(CFG(3.0), least=100.0), {"cond": A, "uncond": B}, 2.8),  # nothing is that large
]


@pytest.mark.parametrize(("guidance", "worlds", "mean"), SUMS, ids=lambda v: str(v)[:40])
def test_a_sum_of_scores_is_the_score_at_the_same_sum_of_means(guidance, worlds, mean):
    exact = Gaussian(mean, 0.5).flow(START, GRID[0], GRID[-1])
    assert (ends(guidance, worlds) - exact).abs().max() <= 1e-6


def test_in_a_window_two_flows_follow_each_other():
    """cond's flow above it, the guided one in it, cond's below; the window's edges lie between two
    points of the grid that are next to each other, so that no step is half in it."""
    low, high = WINDOW
    edges = [high * (1 + 1e-9), high, low, low * (1 - 1e-9)]
    grid = sorted({*GRID, *edges}, reverse=True)
    found = ends(Interval(CFG(3.0), low, high), {"cond": A, "uncond": B}, grid)
    guided = Gaussian(2.8, 0.5)
    exact = A.flow(guided.flow(A.flow(START, TOP, high), high, low), low, LOW)
    assert (found - exact).abs().max() <= 1e-6


# The others: two numbers


Pair = np.ndarray  # (a, b): the values a + b z
Q = START.square().mean().item()


def inner(p: Pair, r: Pair) -> float:
    """The mean of p r over the values of the picture."""
    return p[0] * r[0] + p[1] * r[1] * Q


def onto(p: Pair, r: Pair) -> Pair:
    return r * inner(p, r) / inner(r, r)


def x0_of(world: Gaussian, x: Pair, sigma: float) -> Pair:
    """Bayes: the mean of x0 given x = x0 + sigma eps."""
    share = world.std**2 / (world.std**2 + sigma**2)
    return share * x + np.array([(1 - share) * world.mean, 0])


def eps_of(world: Gaussian, x: Pair, sigma: float) -> Pair:
    return (x - x0_of(world, x, sigma)) / sigma


def largest(p: Pair) -> float:
    return max(abs(p[0] + p[1] * z) for z in (-12, 12))


def rescale(x, sigma, w=3.0, share=0.7):
    """Eq. 15 and 16 of Lin et al.: std(a + b z) is b std(z)."""
    cond, uncond = eps_of(NARROW, x, sigma), eps_of(WIDE, x, sigma)
    guided = uncond + w * (cond - uncond)
    return share * guided * cond[1] / guided[1] + (1 - share) * guided


def varying(x, sigma):
    """The scale falls from 5 at sigma 10 to 1 at 0.1 along log sigma."""
    w = 5 - 4 * math.log(10 / sigma) / math.log(100) if sigma > 0.1 else 1.0
    cond, uncond = eps_of(A, x, sigma), eps_of(B, x, sigma)
    return uncond + w * (cond - uncond)


def apg(x, sigma, w=4.0, eta=0.25):
    """Algorithm 1 of Sadat et al., of x0."""
    cond, uncond = x0_of(NARROW, x, sigma), x0_of(WIDE, x, sigma)
    along = onto(cond - uncond, cond)
    x0 = cond + (w - 1) * ((cond - uncond - along) + eta * along)
    return (x - x0) / sigma


def apg_bound(x, sigma, w=4.0, norm=3.0):
    """The same with the bound alone; the picture has 64 values."""
    cond, uncond = x0_of(NARROW, x, sigma), x0_of(WIDE, x, sigma)
    change = cond - uncond
    change = change * min(1.0, norm / math.sqrt(64 * inner(change, change)))
    return (x - cond - (w - 1) * change) / sigma


def zero_star(x, sigma, w=4.0):
    """Eq. 12 of Fan et al."""
    cond, uncond = eps_of(NARROW, x, sigma), eps_of(WIDE, x, sigma)
    fitted = onto(cond, uncond)
    return fitted + w * (cond - fitted)


def threshold(x, sigma, w=6.0, least=2.0):
    """Section 2.3 of Saharia et al. at the largest value: nothing is clipped."""
    cond, uncond = x0_of(A, x, sigma), x0_of(B, x, sigma)
    x0 = uncond + w * (cond - uncond)
    return (x - x0 * least / max(least, largest(x0))) / sigma


def perp_neg(x, sigma, w=3.0, strength=1.5):
    """Eq. 7 of Armandpour et al."""
    cond, empty, negative = (eps_of(world, x, sigma) for world in (NARROW, WIDE, C))
    towards, away = cond - empty, negative - empty
    return empty + w * (towards - strength * (away - onto(away, towards)))


def followed(slope) -> torch.Tensor:
    """d(a, b) / d sigma = the pair of eps, by Runge and Kutta with 1000 steps from (0, 1)."""
    x = np.array([0.0, 1.0])
    grid = [TOP * (LOW / TOP) ** (i / 1000) for i in range(1001)]
    for s, after in pairwise(grid):
        h = after - s
        k1 = slope(x, s)
        k2 = slope(x + h / 2 * k1, s + h / 2)
        k3 = slope(x + h / 2 * k2, s + h / 2)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(x + h * k3, after))
    return x[0] + x[1] * START


@pytest.mark.parametrize(
    ("guidance", "worlds", "slope", "limit"),
    [
        (Rescale(CFG(3.0), 0.7), {"cond": NARROW, "uncond": WIDE}, rescale, 1e-6),
        (Varying((5.0, 1.0), (10.0, 0.1)), {"cond": A, "uncond": B}, varying, 1e-4),  # a kink
        (APG(4.0, 0.25), {"cond": NARROW, "uncond": WIDE}, apg, 1e-6),
        (APG(4.0, 1.0, 3.0), {"cond": NARROW, "uncond": WIDE}, apg_bound, 1e-4),  # a kink
        (CFGZeroStar(4.0), {"cond": NARROW, "uncond": WIDE}, zero_star, 1e-6),
        (Threshold(CFG(6.0), 1.0, 2.0), {"cond": A, "uncond": B}, threshold, 1e-4),  # kinks
        (PerpNeg(3.0, 1.5), {"cond": NARROW, "empty": WIDE, "uncond": C}, perp_neg, 1e-6),
    ],
    ids=lambda v: getattr(v, "__name__", str(v)[:40]),
)
def test_the_guided_law_by_two_numbers(guidance, worlds, slope, limit):
    exact, found = followed(slope), ends(guidance, worlds)
    assert (found - exact).abs().max() <= limit
    assert (ends(CFG(1), worlds) - exact).abs().max() > 0.05


def test_rescaling_gives_back_the_spread_of_cond():
    """With share 1 the spread follows cond's own equation; CFG alone makes it narrower."""
    worlds = {"cond": NARROW, "uncond": WIDE}
    spread = NARROW.flow(START, TOP, LOW).std().item()
    assert ends(Rescale(CFG(3.0), 1.0), worlds).std().item() == pytest.approx(spread, abs=1e-7)
    assert ends(CFG(3.0), worlds).std().item() < spread - 0.02


def test_cfg_plus_plus_step_by_step():
    """Algorithm 2 of Chung et al. is a rule for steps, not for a flow: x' = x0 + sigma' eps with
    x0 guided and uncond's eps. Between Gaussians its mean and spread follow by hand."""
    grid, lam = [TOP * (LOW / TOP) ** (i / 12) for i in range(13)], 0.6
    x = np.array([0.0, 1.0])
    for sigma, after in pairwise(grid):
        cond, uncond = x0_of(NARROW, x, sigma), x0_of(WIDE, x, sigma)
        x = uncond + lam * (cond - uncond) + after * eps_of(WIDE, x, sigma)
    found = ends(CFGPlusPlus(lam), {"cond": NARROW, "uncond": WIDE}, grid, "euler")
    assert (found - (x[0] + x[1] * START)).abs().max() <= 1e-12


# A mixture


def test_an_interval_in_a_mixture_guides_where_it_says():
    """Above and below the window the flow is cond's own, in it the sharpened one's."""
    worlds = {"cond": Gaussian(0.9, 0.3), "uncond": Mixture()}
    guidances = (CFG(1), Interval(CFG(3.0), *WINDOW), CFG(3.0))
    spread = [ends(guidance, worlds).std().item() for guidance in guidances]
    assert spread[2] < spread[1] < spread[0]


def test_what_tames_high_scales_does():
    """At scale 15 the ends overshoot; each of these brings them nearer to cond's own mean."""
    worlds = {"cond": A, "uncond": B}
    wild = ends(CFG(15.0), worlds).mean().item()
    exact = Gaussian(14.8, 0.5).flow(START, GRID[0], GRID[-1]).mean().item()
    assert wild == pytest.approx(exact, abs=1e-5)
    tamed = (
        Threshold(CFG(15.0), 0.995, 2.0),
        Interval(CFG(15.0), 0.1, 1.0),
        Varying((1.0, 15.0), (10.0, 0.05)),
    )
    for guidance in tamed:
        assert ends(guidance, worlds).mean().item() < wild - 1, guidance
