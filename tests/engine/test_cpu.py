"""oneDNN's packed layers, where this torch has them."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sdcore.adapters.apply import twin
from sdcore.engine import choose, cpu, ready
from sdcore.engine.ops import Ops
from sdcore.loading import load
from sdcore.models.layers import attend
from sdcore.models.reordered import Reordered
from tests.engine.networks import latents, told, unet

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


def test_the_norm_of_a_large_map() -> None:
    norm = nn.GroupNorm(4, 8).requires_grad_(False)
    norm.weight.mul_(1.5)
    norm.bias.add_(0.2)
    x = 1 + torch.randn(2, 8, 256, 250, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    right = F.silu(copy.deepcopy(norm).double()(x.double()))
    out = cpu.CpuOps().norm(norm, silu=True)(x)
    assert (out - right).norm() < 1e-6 * right.norm()


def test_a_doubling_in_halves_rounds_the_sums_of_weights_once_more() -> None:
    layer = nn.Conv2d(32, 16, 3, padding=1).bfloat16().requires_grad_(False)
    x = torch.randn(1, 32, 6, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    wide = F.interpolate(x.double(), scale_factor=2.0, mode="nearest")
    right = F.conv2d(wide, layer.weight.double(), layer.bias.double(), padding=1)
    out = cpu.CpuOps().double(layer)(x, None)
    assert out.dtype == torch.bfloat16
    assert (out - right).norm() < 2**-8 * right.norm()


@pytest.mark.parametrize("wide", [1.0, 10.0])
def test_attention_by_products(wide: float) -> None:
    """Scores of any width: their rounding must not grow with them."""
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, length, 24, generator=rng) for length in (300, 130, 130))
    q, k, v = (wide * q).bfloat16(), k.bfloat16(), v.bfloat16()
    right = attend(q.double(), k.double(), v.double(), 3)
    out = cpu._attend(q, k, v, 3)
    assert out.dtype == torch.bfloat16
    assert (out - right).norm() < 2**-7 * right.norm()
    assert torch.equal(cpu._attend(q[1:], k[1:], v[1:], 3)[0], out[1])


def test_attention_survives_scores_that_the_sample_of_keys_does_not_show() -> None:
    q = torch.full((1, 4, 8), 100.0).bfloat16()
    k = torch.full((1, 40, 8), -100.0).bfloat16()
    k[:, 5] = 100  # 28000 above all others, and none of those that are looked at
    v = torch.arange(40.0).bfloat16()[None, :, None].expand(1, 40, 8)
    assert torch.equal(cpu._attend(q, k, v, 1), torch.full((1, 4, 8), 5.0).bfloat16())


def test_nothing_is_drawn_from_the_callers_numbers() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1).requires_grad_(False)
    before = torch.get_rng_state()
    assert cpu.available.__wrapped__(torch.float32)
    cpu.CpuOps().double(conv)
    assert torch.equal(torch.get_rng_state(), before)


def test_packed_weights_take_the_place_of_plain_ones() -> None:
    net = unet("SD 1.x")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    said, x = told(net, 2), latents(2)
    right = ready(net, [10.0])(x, 10.0, **said)
    packed = [name for name, weight in net.named_parameters() if isinstance(weight, Reordered)]
    assert len(packed) > 40
    assert all(net.get_parameter(name).plain is None for name in packed)
    state = net.state_dict()
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert ready(net, [10.0], "plain") is net
    assert not any(isinstance(weight, Reordered) for weight in net.parameters())
    assert torch.equal(ready(net, [10.0])(x, 10.0, **said), right)


def doubled(weight: nn.Parameter) -> None:
    weight.data.mul_(2)


def replaced(weight: nn.Parameter) -> None:
    weight.data = weight.data * 2


def viewed(weight: nn.Parameter) -> None:
    weight.detach().view(-1).mul_(2)


def sliced(weight: nn.Parameter) -> None:
    weight[:] = 2 * weight


def in_numpy(weight: nn.Parameter) -> None:
    array = weight.detach().numpy()
    array *= 2


def in_place(weight: nn.Parameter) -> None:
    weight.mul_(2)


@pytest.mark.parametrize("write", [doubled, replaced, viewed, sliced, in_numpy, in_place])
def test_whatever_writes_is_drawn_with(write: Callable[[nn.Parameter], None]) -> None:
    """Through weights that are held from before the first drawing, and more than once."""
    net = unet("SD 1.x")
    other = copy.deepcopy(net)
    held = [each.mid_block.resnets[0].conv1.weight for each in (net, other)]
    said, x = told(net, 2), latents(2)
    ready(net, [10.0])(x, 10.0, **said)
    for _ in range(2):
        for weight in held:
            write(weight)
        right = other(x, 10.0, **said)
        for answer in (net(x, 10.0, **said), ready(net, [10.0])(x, 10.0, **said)):
            assert (answer - right).norm() < 1e-5 * right.norm()


def test_memory_that_somebody_holds_stays_the_weights_own() -> None:
    net = unet("SD 1.x")
    weight = net.mid_block.resnets[0].conv1.weight
    view, said, x = weight.data, told(net, 2), latents(2)
    ready(net, [10.0])(x, 10.0, **said)
    view.mul_(2)
    assert torch.equal(net.mid_block.resnets[0].conv1.weight, view)


def test_adapters_pack_what_they_change_alone() -> None:
    net = unet("SD 1.x")
    ready(net, [10.0])
    other = twin(net)
    layer = other.mid_block.resnets[0].conv1
    layer.weight = nn.Parameter(1.5 * layer.weight, requires_grad=False)
    said, x = told(net, 2), latents(2)
    ours = ready(other, [10.0])(x, 10.0, **said)
    pairs = list(zip(net.parameters(), other.parameters(), strict=True))
    assert sum(a is not b for a, b in pairs) == 1
    right = copy.deepcopy(other)(x, 10.0, **said)
    assert (ours - right).norm() < 1e-5 * right.norm()


def test_what_it_is_chosen_for() -> None:
    net = unet("SD 1.x")
    assert choose(net).engine == "fast"
    assert choose(net.half()).engine == "plain"  # float16 is emulated on a CPU


def test_drawing_asks_no_plain_weight(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first such question makes torch load `torch.distributed`: 0.4 s of the first picture."""

    def asked(func: object, *more: object) -> None:
        raise AssertionError(f"{func} was asked of a weight in another order")

    monkeypatch.setattr(Reordered, "__torch_dispatch__", staticmethod(asked))
    assert cpu.available.__wrapped__(torch.float32)
    sd = load(tiny_path, device="cpu")
    run = sd.prepare("a red house", seeds=[0], steps=2)
    assert len(run.decode([step.x_next for step in run][-1])) == 1
    assert run.settings[0].engine == "fast"
    assert isinstance(sd.unet.conv_in.weight, Reordered)
