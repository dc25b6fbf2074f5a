"""The training table against published constants and diffusers."""

import math

import pytest
import torch

from scripts.trajectories import SD
from sdcore.errors import InputError
from sdcore.schedulers import NoiseSchedule, resolve
from sdcore.schedulers.noise_schedule import make_betas, zero_terminal_snr


def test_published_constants():
    table = resolve("euler").noise_schedule
    assert len(table) == 1000
    assert table.alphas_cumprod[0] == pytest.approx(0.999149978, abs=1e-9)
    assert table.alphas_cumprod[-1] == pytest.approx(0.004660095, abs=1e-9)
    assert table.sigmas[0] == pytest.approx(0.029167533, abs=2e-9)  # 1 float32 ulp
    assert table.sigmas[1] == pytest.approx(0.041314479, abs=4e-9)
    assert table.sigmas[-1] == pytest.approx(14.614646912, abs=1e-8)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_tables_equal_diffusers_to_the_bit(kind, zero_snr):
    diffusers = pytest.importorskip("diffusers")
    config = {**SD, "beta_schedule": kind, "rescale_betas_zero_snr": zero_snr}
    for name in ("ddim", "euler"):
        classes = {"ddim": diffusers.DDIMScheduler, "euler": diffusers.EulerDiscreteScheduler}
        theirs = classes[name].from_config(config)
        ours = resolve(name, config=config).noise_schedule
        assert torch.equal(torch.tensor(ours.alphas_cumprod), theirs.alphas_cumprod)
        if name == "euler":
            assert torch.equal(torch.tensor(ours.sigmas[::-1]), theirs.sigmas[:-1])


def test_zero_terminal_snr_ends_in_nothing_but_noise():
    betas = zero_terminal_snr(make_betas("scaled_linear", 0.00085, 0.012, 1000))
    table = NoiseSchedule.from_betas(betas)
    assert table.alphas_cumprod[-1] == 0
    assert table.sigmas[-1] == math.inf
    assert table.sigma(999) == math.inf
    assert math.isfinite(table.sigma(998))


def test_sigma_and_timestep_are_inverse():
    table = resolve("euler").noise_schedule
    for t in (0, 1, 2, 500, 998, 999):
        assert table.sigma(t) == table.sigmas[t]
        assert table.timestep(table.sigmas[t]) == pytest.approx(t, abs=1e-9)
    for t in (0.5, 17.25, 946.421, 998.999):
        # sigma(t) is linear in sigma, timestep(sigma) in log sigma: second order apart in a cell
        assert table.timestep(table.sigma(t)) == pytest.approx(t, abs=0.05)
        assert table.sigmas[int(t)] < table.sigma(t) < table.sigmas[int(t) + 1]


def test_timesteps_stay_in_the_table():
    table = resolve("euler").noise_schedule
    assert table.timestep(0.0) == table.timestep(0.001) == 0.0
    assert table.timestep(1e6) == 999.0


def test_unknown_betas_are_refused():
    with pytest.raises(InputError, match="known: scaled_linear, linear"):
        make_betas("exp", 0.1, 0.2, 10)
