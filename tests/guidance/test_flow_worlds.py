"""Guidance along the straight path of flow matching, in worlds whose v is known exactly.

y = (1 - s) x0 + s eps is what the network sees, v = eps - x0 what it says. Where x0 is of
N(mean, std^2), v is linear in y: the values of a picture stay y = a + b z with the pattern z that
it began with, and a and b follow an equation of their own, written out here by the papers'
formulas without tensors.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from sdcore.guidance import CFG, CFGZeroStar
from sdcore.lab import Gaussian, Mixture, Network, denoiser
from sdcore.process import RectifiedFlow, to_s
from sdcore.sampling import sample
from sdcore.schedulers import resolve
from sdcore.schedulers.flow_schedule import to_sigma

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
PROCESS = RectifiedFlow()
Z = torch.linspace(-1.5, 1.5, 64, dtype=torch.float64).reshape(1, 1, 8, 8)
Q = Z.square().mean().item()
TOP, LOW = 0.98, 0.02  # in s
GRID, FINE = ([to_sigma(TOP + (LOW - TOP) * i / n) for i in range(n + 1)] for n in (80, 320))
COND, UNCOND = Gaussian(0.8, 0.3), Gaussian(-0.2, 0.9)
Pair = np.ndarray  # (a, b): the values a + b z


def v_of(world: Gaussian, y: Pair, s: float) -> Pair:
    """E[v | y]: v and y are jointly normal, with covariance s - (1 - s) std^2."""
    variance = s**2 + (1 - s) ** 2 * world.std**2
    share = (s - (1 - s) * world.std**2) / variance
    return share * (y - np.array([(1 - s) * world.mean, 0])) - np.array([world.mean, 0])


def inner(p: Pair, r: Pair) -> float:
    """The mean of p r over the values of the picture."""
    return p[0] * r[0] + p[1] * r[1] * Q


def zero_star(scale: float):
    """Eq. 12 of Fan et al. 2025, of v."""

    def v(y: Pair, s: float) -> Pair:
        cond, uncond = v_of(COND, y, s), v_of(UNCOND, y, s)
        fitted = uncond * inner(cond, uncond) / inner(uncond, uncond)
        return fitted + scale * (cond - fitted)

    return v


def cfg(scale: float):
    def v(y: Pair, s: float) -> Pair:
        return v_of(UNCOND, y, s) + scale * (v_of(COND, y, s) - v_of(UNCOND, y, s))

    return v


def followed(v, begin: float = TOP) -> torch.Tensor:
    """y at s = LOW by d(a, b) / ds = v, from (0, 1): Runge and Kutta with 2000 steps."""
    y = np.array([0.0, 1.0])
    for s, after in pairwise(np.linspace(begin, LOW, 2001)):
        h = after - s
        k1 = v(y, s)
        k2 = v(y + h / 2 * k1, s + h / 2)
        k3 = v(y + h / 2 * k2, s + h / 2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + v(y + h * k3, after))
    return y[0] + y[1] * Z


def ends(guidance, cond=COND, uncond=UNCOND, grid=GRID, solver="rk4"):
    """y at the end of a run through the engine's own Denoiser."""
    denoise = denoiser(cond, uncond, guidance, process=PROCESS)
    *_, last = sample(denoise, Z * (1 + grid[0]), grid, resolve(solver, config=FLOW).solver)
    return last.x_next / (1 + grid[-1])


@pytest.mark.parametrize("s", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("world", [COND, UNCOND])
def test_what_the_network_says_is_exact(world: Gaussian, s: float) -> None:
    a, b = v_of(world, np.array([0.0, 1.0]), s)
    said = Network([world], PROCESS)(Z, PROCESS.clock.timestep(to_sigma(s)))
    assert (said - (a + b * Z)).abs().max() < 1e-12


@pytest.mark.parametrize("s", [0.1, 0.5, 0.9])
def test_without_a_condition_v_is_the_mean_over_the_conditions(s: float) -> None:
    """E[v | y] = sum_k p(k | y) E[v | y, k], with p(k | y) by Bayes."""
    world = Mixture()
    modes = [world.given(k) for k in range(3)]
    t = PROCESS.clock.timestep(to_sigma(s))
    network = Network([world, *modes], PROCESS)
    each = torch.stack([network(Z, t, world=torch.tensor([k + 1])) for k in range(3)])
    spreads = [math.hypot(s, (1 - s) * mode.std) for mode in modes]
    likelihood = torch.stack([
        weight * torch.exp(-(((Z - (1 - s) * mode.mean) / spread) ** 2) / 2) / spread
        for weight, mode, spread in zip(world.weights, modes, spreads, strict=True)
    ])  # fmt: skip
    mean = (each * likelihood / likelihood.sum(0)).sum(0)
    assert (network(Z, t, world=torch.tensor([0])) - mean).abs().max() < 1e-12


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_cfg_is_the_flow_of_a_moved_world(scale: float) -> None:
    """Between worlds of one width v is that of the world at the same sum of means."""
    cond, uncond = Gaussian(0.8, 0.5), Gaussian(-0.2, 0.5)
    moved = Gaussian(-0.2 + scale, 0.5).flow(Z * (1 + GRID[0]), GRID[0], GRID[-1])
    assert (ends(CFG(scale), cond, uncond) - moved / (1 + GRID[-1])).abs().max() < 1e-7


LAWS = [(CFG(4.0), cfg(4.0)), (CFGZeroStar(4.0), zero_star(4.0))]


@pytest.mark.parametrize(("guidance", "v"), LAWS, ids=["cfg", "zero_star"])
def test_the_guided_law_by_two_numbers(guidance, v) -> None:
    exact = followed(v)  # on a fine grid: uncond's v nearly vanishes once, where its size jumps
    assert (ends(guidance, grid=FINE, solver="verner6") - exact).abs().max() < 1e-6
    assert (ends(CFG(1.0)) - exact).abs().max() > 0.05


def test_zero_star_fits_what_the_network_says() -> None:
    """v, and not the eps that belongs to it: the two sizes differ, and so do the ends."""

    def of_eps(y: Pair, s: float) -> Pair:
        cond, uncond = (y + (1 - s) * v_of(world, y, s) for world in (COND, UNCOND))
        fitted = uncond * inner(cond, uncond) / inner(uncond, uncond)
        eps = fitted + 4 * (cond - fitted)
        return (eps - y) / (1 - s)

    assert (followed(of_eps) - followed(zero_star(4.0))).abs().max() > 0.03


@pytest.mark.parametrize("s", [0.1, 0.6, 0.95])
def test_the_size_is_the_best_one(s: float) -> None:
    """What is left of cond beside s uncond is smallest, and at right angles to uncond (eq. 10)."""
    sigma = to_sigma(s)
    x = Z * (1 + sigma)
    cond, uncond = (denoiser(world, process=PROCESS)(x, sigma) for world in (COND, UNCOND))
    cond, uncond = cond.eps - cond.x0, uncond.eps - uncond.x0
    guided = denoiser(COND, UNCOND, CFGZeroStar(2.0), process=PROCESS)(x, sigma)
    left = (guided.eps - guided.x0) - cond  # (scale - 1) (cond - fitted)
    assert abs((left * uncond).sum().item()) < 1e-10 * uncond.square().sum().item()
    fitted = (cond - left).flatten()
    for size in np.linspace(-2, 2, 81):
        tried = (cond.flatten() - size * uncond.flatten()).norm()
        assert tried >= (cond.flatten() - fitted).norm() - 1e-12


def test_with_nothing_to_guide_it_is_the_flow() -> None:
    exact = COND.flow(Z * (1 + GRID[0]), GRID[0], GRID[-1]) / (1 + GRID[-1])
    assert (ends(CFGZeroStar(5.0), COND, COND) - exact).abs().max() < 1e-7


def test_zero_init_holds_the_picture_still() -> None:
    """Section 4.2: v is 0 at first, so that y is the same where the guided flow takes over."""
    wait = FINE[80]
    zero = CFGZeroStar(4.0, zero_above=wait * (1 + 1e-9))
    found = ends(zero, grid=_with_edge(wait), solver="verner6")
    assert (found - followed(zero_star(4.0), to_s(wait))).abs().max() < 1e-6


def _with_edge(sigma: float) -> list[float]:
    """The grid with a point just above, so that no step is half still."""
    return sorted({*FINE, sigma * (1 + 2e-9)}, reverse=True)


@pytest.mark.parametrize(("wrong", "better"), [(0.0, False), (3.0, True)])
def test_zero_init_is_for_networks_that_are_worse_than_nothing(wrong: float, better: bool) -> None:
    """It helps where |v - v*| > |v*| at first, and costs where v is exact (eq. 14)."""

    class Spoilt:
        """The world, with an error of v near pure noise."""

        def __call__(self, x, sigma):
            v = wrong if to_s(sigma) > 0.9 else 0.0
            said = COND(x, sigma)
            shift = v / (1 + sigma)  # of v alone: x0 + sigma eps stays x
            return type(said)(said.x0 - sigma * shift, said.eps + shift)

    exact = COND.flow(Z * (1 + GRID[0]), GRID[0], GRID[-1]) / (1 + GRID[-1])
    errors = [
        (ends(CFGZeroStar(1.0, zero_above=above), Spoilt(), Spoilt()) - exact).abs().max()
        for above in (to_sigma(0.9), math.inf)
    ]
    assert (errors[0] < errors[1]) == better
