"""The fast networks beside the plain ones."""

import pytest
import torch
from torch import Tensor

from sdcore.engine.ops import Ops
from sdcore.engine.unet import FastUNet
from sdcore.engine.vae import FastDecoder
from tests.engine.interpreted import DEVICE, cuda_ops
from tests.engine.networks import UNETS, latents, told, unet, vae


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def asked(network: FastUNet, x: Tensor, t: float, context: Tensor, extra=None, **added) -> Tensor:
    x = x if extra is None else torch.cat([x, extra], dim=1)
    return network(x, network.shifts([1.0, t], added)[1], network.keys_values(context))


@pytest.mark.parametrize("name", UNETS)
def test_every_family_in_plain_layers(name: str) -> None:
    network = unet(name)
    x, what = latents(2), told(network, 2)
    out = asked(FastUNet(network, Ops()), x, 500.5, **what)
    assert apart(out, network(x, 500.5, **what)) < 1e-5


@pytest.mark.parametrize(
    ("name", "rows"), [("SDXL", 2), pytest.param("SD 1.x", 1, marks=pytest.mark.slow)]
)
def test_the_layers_of_a_gpu(name: str, rows: int) -> None:
    ops = cuda_ops()
    network = unet(name).to(DEVICE)
    x = latents(rows)[..., :4, :5].to(DEVICE)  # small: the interpreter takes a minute for more
    what = {k: v.to(DEVICE) for k, v in told(network, rows).items()}
    right = network(x, 500.5, **what)
    assert apart(asked(FastUNet(network, ops), x, 500.5, **what), right) < 1e-5


def test_the_decoder() -> None:
    network = vae().to(DEVICE)
    z = torch.randn(1, 4, 3, 2, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    right = network.decode(z)
    for ops in (Ops(), cuda_ops()):
        assert apart(FastDecoder(network, ops)(z), right) < 1e-5
