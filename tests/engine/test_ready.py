"""The seam: what runs, what is left to the plain network, and what is remembered."""

import copy
import gc
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

from sdcore.adapters.apply import Adapted
from sdcore.engine import choose, ready, ready_decoder
from sdcore.errors import InputError
from sdcore.models import UNet
from sdcore.models.freeu import FreeU
from tests.engine.interpreted import DEVICE, kernels
from tests.engine.networks import latents, told, unet, vae


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def network(name: str = "SD 1.x", seed: int = 0) -> UNet:
    if DEVICE == "cuda":
        kernels()
    return unet(name, seed).to(DEVICE)


def what(net: UNet, rows: int = 2, seed: int = 1) -> dict[str, Tensor]:
    return {name: value.to(DEVICE) for name, value in told(net, rows, seed).items()}


def x(seed: int = 2) -> Tensor:
    return latents(2, seed).to(DEVICE)


@pytest.mark.parametrize("name", ["SD 1.x", "SDXL", "inpainting", "LCM"])
def test_two_prompts_in_turns_at_any_time(name: str) -> None:
    net = network(name)
    fast = ready(net, [900.0, 10.0])
    first, second = what(net), what(net, seed=5)
    for t, said, seed in ((900, first, 2), (900, second, 3), (10, first, 2), (33.3, second, 4)):
        assert apart(fast(x(seed), t, **said), net(x(seed), t, **said)) < 1e-5


def test_equal_calls_give_equal_bits_whatever_came_between() -> None:
    net = network()
    one, two = ready(net, [10.0]), ready(net, [])
    said = what(net)
    first = one(x(), 10.0, **said)
    kept = first.clone()
    one(x(3), 10.0, **what(net, seed=4))
    assert torch.equal(two(x(), 10.0, **said), first)
    assert torch.equal(first, kept)  # a result is the caller's own


def test_weights_written_to_are_seen() -> None:
    net = network()
    said = what(net)
    before = ready(net, [10.0])(x(), 10.0, **said)
    net.conv_in.weight.mul_(1.5)
    net.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_k.weight.mul_(0.5)
    after = ready(net, [10.0])(x(), 10.0, **said)
    assert apart(after, net(x(), 10.0, **said)) < 1e-5
    assert apart(after, before) > 1e-3


def test_inference_mode_and_none_in_any_order() -> None:
    net = network()
    fast, said = ready(net, [10.0]), what(net)
    with torch.inference_mode():
        inside = fast(x(), 10.0, **said)
    assert torch.equal(fast(x(), 10.0, **said), inside)
    with torch.inference_mode():
        assert torch.equal(fast(x(), 10.0, **said), inside)


def test_gradients_go_through_the_plain_network() -> None:
    net = network()
    fast, said = ready(net, [10.0]), what(net)
    start = x().requires_grad_()
    fast(start, 10.0, **said).square().sum().backward()
    assert start.grad is not None
    assert start.grad.abs().max() > 0


def test_the_plain_engine_is_the_module_itself() -> None:
    net = network()
    right = net(x(), 10.0, **what(net))
    ready(net, [10.0])(x(), 10.0, **what(net))
    plain = ready(net, [10.0], "plain")
    assert plain is net
    assert torch.equal(plain(x(), 10.0, **what(net)), right)


def hooked(net: UNet) -> None:
    net.mid_block.resnets[0].register_forward_hook(lambda *_: None)


def adapted(net: UNet) -> None:
    net.conv_out = Adapted(net.conv_out, [nn.Identity()])


def sliced(net: UNet) -> None:
    net.mid_block.attentions[0].transformer_blocks[0].attn1.rows = 16


def moved(net: UNet) -> None:
    vars(net)["placement"] = (torch.device(DEVICE), torch.float32)


def freed(net: UNet) -> None:
    net.freeu = FreeU()


def trained(net: UNet) -> None:
    net.conv_in.weight.requires_grad_()


@pytest.mark.parametrize(
    ("change", "why"),
    [(hooked, "hook"), (adapted, "Adapted"), (sliced, "slices"), (moved, "moves"),
     (freed, "FreeU"), (trained, "gradients")],
)  # fmt: skip
def test_what_is_special_is_drawn_plainly(change, why: str) -> None:
    net = network()
    change(net)
    choice = choose(net)
    assert choice.engine == "plain"
    assert choice.why is not None
    assert why in choice.why
    assert ready(net, [10.0]) is net


def test_a_method_in_place_of_its_own_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    monkeypatch.setattr(UNet, "forward", lambda self, x, t, context: 0 * x)
    assert "UNet does was replaced" in str(choose(net).why)
    assert not ready(net, [10.0])(x(), 10.0, **what(net)).any()


def test_a_copy_is_a_network_of_its_own() -> None:
    net = network()
    ready(net, [10.0])(x(), 10.0, **what(net))
    other = copy.deepcopy(net)
    other.conv_out.weight.mul_(2)
    said = what(net)
    assert apart(ready(other, [10.0])(x(), 10.0, **said), other(x(), 10.0, **said)) < 1e-5
    assert apart(ready(net, [10.0])(x(), 10.0, **said), net(x(), 10.0, **said)) < 1e-5


def test_the_decoder() -> None:
    net = vae().to(DEVICE)
    z = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    right = net.decode(z)
    assert apart(ready_decoder(net)(z), right) < 1e-5
    assert torch.equal(ready_decoder(net, "plain")(z), right)


def test_nothing_is_kept_of_a_network_that_is_gone() -> None:
    net, coder = network(), vae().to(DEVICE)
    ready(net, [10.0])(x(), 10.0, **what(net))
    ready_decoder(coder)
    gone = ref(net), ref(coder)
    del net, coder
    gc.collect()
    assert [each() for each in gone] == [None, None]


def test_names() -> None:
    with pytest.raises(InputError, match="did you mean plain"):
        choose(network(), "plan")
