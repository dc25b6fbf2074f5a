"""Worlds with known answers: the answers themselves."""

import pytest
import torch

from sdcore.errors import InputError
from sdcore.guidance import CFG
from sdcore.lab import Gaussian, Mixture, Network, denoiser, point
from sdcore.process import Sigmas, VariancePreserving
from sdcore.sampling import sample
from sdcore.schedulers import resolve

WORLDS = {
    "point": point(0.4),
    "gaussian": Gaussian(0.3, 0.5),
    "mixture": Mixture(),
    "far apart": Mixture((-3.0, 3.0), (0.1, 0.3), (0.9, 0.1)),
}
X = torch.linspace(-8, 8, 48, dtype=torch.float64).reshape(2, 2, 3, 4)


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("sigma", [14.6, 1.0, 0.03])
def test_x_is_x0_plus_noise(name, sigma):
    prediction = WORLDS[name](X, sigma)
    assert (prediction.x0 + sigma * prediction.eps - X).abs().max() <= 1e-14 * X.abs().max()
    assert prediction.x0.shape == prediction.eps.shape == X.shape
    assert WORLDS[name](X.float(), sigma).x0.dtype == torch.float32


@pytest.mark.parametrize("name", WORLDS)
def test_sigma_zero_has_an_answer(name):
    prediction = WORLDS[name](X, 0.0)
    assert prediction.x0.isfinite().all()
    assert torch.equal(prediction.eps, torch.zeros_like(X))


@pytest.mark.parametrize("sigma", [14.6, 1.0, 0.1])
def test_eps_is_the_score(sigma):
    """eps = -sigma d/dx log p(x; sigma), by automatic differentiation."""
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(Mixture().log_density(x, sigma).sum(), x)
    assert (Mixture()(X, sigma).eps + sigma * slope).abs().max() <= 1e-12


def test_the_density_is_one():
    x = torch.linspace(-30, 30, 60001, dtype=torch.float64)
    total = torch.trapezoid(Mixture().log_density(x, 2.0).exp(), x)
    assert total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "mixture", "far apart"])
@pytest.mark.parametrize(("sigma", "sigma_next"), [(10.0, 0.1), (2.0, 0.0), (0.5, 5.0)])
def test_flow_is_the_solution(name, sigma, sigma_next):
    """Against an adaptive Runge-Kutta method of order 8."""
    integrate = pytest.importorskip("scipy.integrate")
    x = X.flatten()[3::6] if sigma > 1 else X.flatten()[3::6] / 4

    def slope(at, y):
        return WORLDS[name](torch.from_numpy(y), at).eps.numpy()

    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-12}
    found = integrate.solve_ivp(slope, (sigma, sigma_next), x.numpy(), **options).y[:, -1]
    exact = WORLDS[name].flow(x, sigma, sigma_next)
    assert (exact - torch.from_numpy(found)).abs().max() <= 1e-10


def test_flow_there_and_back():
    world = Mixture()
    there = world.flow(X, 10.0, 0.05)
    assert (world.flow(there, 0.05, 10.0) - X).abs().max() <= 1e-11
    assert (point(0.4).flow(X, 2.0, 1.0) - (0.4 + (X - 0.4) / 2)).abs().max() <= 1e-15


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0, 7.5])
@pytest.mark.parametrize("form", ["epsilon", "v_prediction", "sample"])
def test_guidance_has_a_known_effect(scale, form):
    """Between two Gaussians of one width it moves the mean, past the condition's own."""
    moved = Gaussian(-0.2 + scale * (0.5 + 0.2), 0.4)
    guided = denoiser(Gaussian(0.5, 0.4), Gaussian(-0.2, 0.4), CFG(scale), form, batch=2)
    for sigma in (10.0, 0.5):
        ours, exact = guided(X, sigma), moved(X, sigma)
        assert (ours.x0 - exact.x0).abs().max() <= 1e-13 * (1 + sigma)
        assert (ours.eps - exact.eps).abs().max() <= 1e-13 * (1 + sigma)
    sigmas = [10 * 200 ** (-i / 100) for i in range(101)]
    end = list(sample(guided, X, sigmas, resolve("dpmpp_2m").solver))[-1].x_next
    assert (end - moved.flow(X, 10.0, sigmas[-1])).abs().max() <= 2e-2


def test_guidance_tilts_a_mixture_towards_its_condition():
    """The guided score is that of p(x)^(1 - scale) p(x | mode)^scale."""
    mixture, scale, sigma = Mixture(), 4.0, 0.8
    guided = denoiser(mixture.given(2), mixture, CFG(scale), batch=2)(X, sigma).eps
    x = X.clone().requires_grad_()
    only = Mixture(mixture.means[2:], mixture.stds[2:], (1.0,))
    log = (1 - scale) * mixture.log_density(x, sigma) + scale * only.log_density(x, sigma)
    (slope,) = torch.autograd.grad(log.sum(), x)
    assert (guided + sigma * slope).abs().max() <= 1e-11


def test_rows_choose_their_world():
    network = Network((point(0.0), point(1.0), point(2.0)), VariancePreserving(Sigmas(), "sample"))
    said = network(torch.ones(3, 1, 2, 2), 1.0, world=torch.tensor([2, 0, 1]))
    assert said[:, 0, 0, 0].tolist() == [2.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "parts", [((0.0,), (1.0, 2.0), (1.0,)), ((0.0,), (0.0,), (1.0,)), ((0.0,), (1.0,), (0.7,))]
)
def test_a_mixture_that_is_none_is_refused(parts):
    with pytest.raises(InputError, match="a mixture has"):
        Mixture(*parts)
