"""SEEDS, exponential Heun, Heun++ and SA-Solver with two evaluations, by their formulas."""

import math

import pytest
import torch

from sdcore.lab import Mixture, Window
from sdcore.sampling import Interval, sample
from sdcore.schedulers import resolve

SIGMA, SIGMA_NEXT = 3.0, 1.2
X = torch.linspace(-4, 4, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
DRAWN = torch.randn(2, *X.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WORLD = Mixture()


def step(name, eta=None):
    """x_next of one step, and between which sigmas noise was drawn."""
    spans = []

    def draw(sigma, sigma_next):
        spans.append((sigma, sigma_next))
        return DRAWN[len(spans) - 1]

    between = Interval(SIGMA, SIGMA_NEXT, 0, 2, (SIGMA, SIGMA_NEXT, 0.0))
    x_next, _, _ = resolve(name, eta=eta).solver(WORLD, X, between, (), draw)
    return x_next, spans


def test_seeds_2_without_noise_is_dpmpp_2s():
    torch.testing.assert_close(step("seeds_2", 0.0)[0], step("dpmpp_2s", 0.0)[0])


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["seeds_2", "exp_heun_2_x0_sde"])
def test_the_one_stage_by_its_formula(name, eta):
    """In lambda, with expm1 alone: e^-z x, 1 - e^-z, and the noise of both pieces."""
    r = 0.5 if name == "seeds_2" else 1.0
    h = math.log(SIGMA / SIGMA_NEXT)
    z, middle = (1 + eta) * h, SIGMA * math.exp(-r * h)
    first = WORLD(X, SIGMA).x0
    noise = math.sqrt(-math.expm1(-2 * r * h * eta)) * DRAWN[0]
    at = middle / SIGMA * math.exp(-r * h * eta) * X - math.expm1(-r * z) * first + middle * noise
    second = WORLD(at, middle).x0
    if name == "seeds_2":
        data = -math.expm1(-z) * (first + (second - first) / (2 * r))
        rest = math.sqrt(-math.expm1(-2 * (1 - r) * h * eta)) * DRAWN[1]
        noise = noise * math.exp((r - 1) * h * eta) + rest
    else:
        line = (math.expm1(-z) + z) / z / r
        data = (-math.expm1(-z) - line) * first + line * second
    expected = SIGMA_NEXT / SIGMA * math.exp(-h * eta) * X + data + SIGMA_NEXT * noise
    found, spans = step(name, eta)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    if eta:
        assert spans[0] == (SIGMA, pytest.approx(middle))
        assert len(spans) == (2 if r < 1 else 1)
        assert spans[-1][1] == pytest.approx(SIGMA_NEXT)


def test_heunpp_by_its_formula():
    sigmas = (9.0, 4.0, 2.0, 0.7, 0.0)
    steps = list(sample(WORLD, X, sigmas, resolve("heunpp2").solver))
    assert [each.nfe for each in steps] == [3, 3, 2, 1]

    def slope(x, sigma):
        return (x - WORLD(x, sigma).x0) / sigma

    x = X
    for i, each in enumerate(steps):
        sigma, after = sigmas[i : i + 2]
        first = slope(x, sigma)
        ahead = x + first * (after - sigma)
        if i < 2:
            beyond = sigmas[i + 2]
            second = slope(ahead, after)
            third = slope(ahead + second * (beyond - after), beyond)
            two, three = after / (3 * sigmas[0]), beyond / (3 * sigmas[0])
            mean = (1 - two - three) * first + two * second + three * third
        elif i == 2:
            two = after / (2 * sigmas[0])
            mean = (1 - two) * first + two * slope(ahead, after)
        else:
            mean = first
        x = x + mean * (after - sigma)
        torch.testing.assert_close(each.x_next, x, rtol=0, atol=1e-12)


def test_pece_asks_again_where_it_corrected():
    """The second answer is what is remembered; the first is what the step reports."""
    sigmas = Window()(6)
    run = list(sample(WORLD, X, sigmas, resolve("sa_solver_pece", eta=0.0).solver))
    assert [each.nfe for each in run] == [1, *[2] * 5]
    for each in run[1:]:
        assert not torch.equal(each.memory[0].value, each.prediction.x0)
    end = WORLD.flow(X, sigmas[0], sigmas[-1])
    once = list(sample(WORLD, X, sigmas, resolve("sa_solver", eta=0.0).solver))[-1].x_next
    assert (run[-1].x_next - end).abs().max() < (once - end).abs().max()


def test_the_names_of_other_tools():
    assert resolve("comfyui:seeds_3").name == "seeds_3"
    assert resolve("comfyui:exp_heun_2_x0").eta == 0
    assert resolve("comfyui:uni_pc").name == "unipc_bh1"
    assert resolve("uni_pc_bh2").name == "unipc"
