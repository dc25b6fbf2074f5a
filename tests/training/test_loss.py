"""The loss of training, against the loop's own Denoiser."""

import pytest
import torch
from torch import Tensor

from sdcore.denoiser import Denoiser
from sdcore.guidance import CFG
from sdcore.process import PREDICTION_TYPES, Process, RectifiedFlow, VariancePreserving
from sdcore.schedulers.noise_schedule import STABLE_DIFFUSION
from sdcore.training.loss import squared_error

PROCESSES = [*(VariancePreserving(STABLE_DIFFUSION, name) for name in PREDICTION_TYPES)]
PROCESSES += [RectifiedFlow()]
SIGMAS = (0.05, 1.0, 12.0)


def network(x: Tensor, t: Tensor | float, scale: float = 1.0) -> Tensor:
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1, 1, 1)
    return scale * torch.tanh(x) + t / 500


def batch(process: Process) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x0, eps = torch.randn(2, len(SIGMAS), 4, 4, 4, generator=generator)
    sigma = torch.tensor(SIGMAS)
    return x0, eps, sigma, torch.tensor([process.clock.timestep(s) for s in SIGMAS])


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_it_is_the_error_of_a_denoiser(process: Process) -> None:
    """Where the network errs by d, the Denoiser's x0 errs by d times what x0 changes with it."""
    x0, eps, sigma, t = batch(process)
    errors = squared_error(network, process, x0, eps, sigma, t)
    for i, one in enumerate(SIGMAS):
        denoise = Denoiser(network, process, {"cond": {"scale": torch.ones(1)}}, CFG(1.0))
        x = (x0 + sigma.view(-1, 1, 1, 1) * eps)[i : i + 1]
        said = denoise(x, one)
        step = process.x0_eps(torch.ones_like(x), x, one)[0] - process.x0_eps(0 * x, x, one)[0]
        error = ((said.x0 - x0[i]) / step).square().mean()
        assert errors[i].item() == pytest.approx(error.item(), rel=1e-3)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_a_perfect_network_has_none(process: Process) -> None:
    x0, eps, sigma, t = batch(process)

    def perfect(x: Tensor, t: Tensor) -> Tensor:
        return process.raw(x0, eps, sigma.view(-1, 1, 1, 1))

    assert squared_error(perfect, process, x0, eps, sigma, t).tolist() == [0, 0, 0]


def test_the_network_sees_each_picture_in_its_own_form_and_time() -> None:
    process, seen = PROCESSES[0], list[tuple[Tensor, Tensor]]()
    x0, eps, sigma, t = batch(process)

    def watched(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return x.to(torch.bfloat16)

    error = squared_error(watched, process, x0, eps, sigma, t)
    ((x, told),) = seen
    assert error.dtype == torch.float32
    assert torch.equal(told, t)
    acp = (1 / (1 + sigma**2)).view(-1, 1, 1, 1)
    assert (x - (acp.sqrt() * x0 + (1 - acp).sqrt() * eps)).abs().max() <= 1e-6
