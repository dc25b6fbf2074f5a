"""What a network was trained on: its form, both ways, for one sigma and for a batch of them."""

import math

import pytest
import torch

from sdcore.errors import InputError
from sdcore.process import (
    PREDICTION_TYPES,
    RectifiedFlow,
    VariancePreserving,
    known_prediction_type,
)
from sdcore.schedulers.noise_schedule import SD_PROCESS, STABLE_DIFFUSION

SIGMAS = (0.0292, 1.0, 14.6146)


def truth(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, batch, 4, 8, 8, generator=generator, dtype=torch.float64)
    return x0, eps


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_every_form_gives_back_the_truth(prediction_type, sigma):
    """x0 and eps that were put in come out again; v by its definition in float64."""
    x0, eps = truth(2)
    alpha = 1 / (1 + sigma**2)
    said = {
        "epsilon": eps,
        "v_prediction": math.sqrt(alpha) * eps - math.sqrt(1 - alpha) * x0,
        "sample": x0,
    }[prediction_type]
    process = VariancePreserving(STABLE_DIFFUSION, prediction_type)
    found = process.x0_eps(said, x0 + sigma * eps, sigma)
    assert (found[0] - x0).abs().max() <= 1e-13
    assert (found[1] - eps).abs().max() <= 1e-12
    assert (process.raw(x0, eps, sigma) - said).abs().max() <= 1e-15 * (1 + sigma)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_batch_of_sigmas_is_each_of_them_alone(prediction_type):
    """Training has a noise level for each picture."""
    process = VariancePreserving(STABLE_DIFFUSION, prediction_type)
    x0, eps = truth(len(SIGMAS))
    sigma = torch.tensor(SIGMAS, dtype=torch.float64)[:, None, None, None]
    x, target = x0 + sigma * eps, process.raw(x0, eps, sigma)
    back = process.x0_eps(target, x, sigma)
    for i, one in enumerate(SIGMAS):
        assert process.c_in(sigma)[i].item() == pytest.approx(process.c_in(one), rel=1e-15)
        assert (target[i] - process.raw(x0[i], eps[i], one)).abs().max() <= 1e-15
        alone = process.x0_eps(target[i], x[i], one)
        for found, expected in zip(back, alone, strict=True):
            assert (found[i] - expected).abs().max() <= 1e-12


def test_the_networks_input_keeps_variance_one():
    acp = torch.tensor(STABLE_DIFFUSION.alphas_cumprod, dtype=torch.float64)
    sigmas = ((1 - acp) / acp).sqrt()
    assert (SD_PROCESS.c_in(sigmas) - acp.sqrt()).abs().max() <= 1e-15
    for sigma in (0.0, *SIGMAS, 2.0**24):
        assert SD_PROCESS.spread(sigma) * SD_PROCESS.c_in(sigma) == pytest.approx(1, abs=4e-16)


def test_ddpms_transition_is_the_tables_beta():
    acp, sigmas = STABLE_DIFFUSION.alphas_cumprod, STABLE_DIFFUSION.sigmas
    for t in (1, 500, 999):
        beta = 1 - acp[t] / acp[t - 1]
        added = VariancePreserving.transition_variance(sigmas[t], sigmas[t - 1])
        assert added == pytest.approx(beta * (1 + sigmas[t - 1] ** 2), rel=1e-3)


def test_another_prediction_type_is_refused():
    with pytest.raises(InputError, match="did you mean epsilon"):
        VariancePreserving(STABLE_DIFFUSION, "eps")
    with pytest.raises(InputError, match="epsilon"):
        known_prediction_type("epsilom")
    assert [known_prediction_type(name) for name in ("eps", "v", "x0")] == list(PREDICTION_TYPES)


@pytest.mark.parametrize("s", [0.1, 0.5, 0.99])
def test_a_flow_is_the_straight_path(s):
    """x_t = (1 - s) x0 + s eps and v = dx_t / ds, at t = 1000 s."""
    process, sigma = RectifiedFlow(), s / (1 - s)
    x0, eps = truth(2)
    x = x0 + sigma * eps
    assert (x * process.c_in(sigma) - ((1 - s) * x0 + s * eps)).abs().max() <= 1e-14
    assert process.spread(sigma) * process.c_in(sigma) == pytest.approx(1, abs=4e-16)
    assert torch.equal(process.raw(x0, eps, sigma), eps - x0)
    found = process.x0_eps(eps - x0, x, sigma)
    assert (found[0] - x0).abs().max() <= 1e-13
    assert (found[1] - eps).abs().max() <= 1e-13
    assert process.clock.timestep(sigma) == pytest.approx(1000 * s)
    assert process.clock.sigma(1000 * s) == pytest.approx(sigma)
    assert process.clock.timestep(process.clock.sigma(1000.0)) == 1000
