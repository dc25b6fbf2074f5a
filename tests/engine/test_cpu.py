"""oneDNN's packed layers, where this torch has them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sdcore.engine import choose, cpu
from sdcore.engine.ops import Ops
from tests.engine.networks import unet

pytestmark = pytest.mark.skipif(
    not cpu.available(torch.float32), reason="this torch packs no weights here"
)


def test_a_doubling_of_four_products_for_nine() -> None:
    layer = nn.Conv2d(32, 16, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 32, 5, 7, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    wide = F.interpolate(x.double(), scale_factor=2.0, mode="nearest")
    right = F.conv2d(wide, layer.weight.double(), layer.bias.double(), padding=1)
    for double in (cpu.CpuOps().double(layer), Ops().double(layer)):
        assert ((double(x, None) - right).norm() / right.norm()) < 1e-6
    # An odd size of the skip is reached as the plain layer reaches it.
    odd = torch.Size([9, 13])
    assert torch.allclose(
        cpu.CpuOps().double(layer)(x, odd), Ops().double(layer)(x, odd), atol=1e-5
    )


def test_halves_keep_their_weights() -> None:
    layer = nn.Conv2d(32, 16, 3, padding=1).bfloat16().requires_grad_(False)
    x = torch.randn(1, 32, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    plain = layer(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    assert torch.allclose(cpu.CpuOps().double(layer)(x, None), plain, atol=2e-2, rtol=2e-2)


def test_nothing_is_drawn_from_the_callers_numbers() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1).requires_grad_(False)
    before = torch.get_rng_state()
    cpu.available.cache_clear()
    assert cpu.available(torch.float32)
    cpu.CpuOps().double(conv)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_it_is_chosen_for() -> None:
    net = unet("SD 1.x")
    assert choose(net).engine == "fast"
    assert choose(net.half()).engine == "plain"  # float16 is emulated on a CPU
