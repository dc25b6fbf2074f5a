"""Weights held in 8 bits: how far off they are, what they take, and where they are refused."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sdcore
from sdcore.errors import InputError
from sdcore.models.compact import Compact, compact, quantized
from tests.engine.networks import UNETS, latents, told, unet


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3, 3)])
def test_no_weight_is_farther_off_than_its_format(kind: str, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight[1] *= 1e-3  # a row has a scale of its own
    weight[2] = 0
    q, scale = quantized(weight, kind)
    assert q.element_size() == 1
    off = (q.float() * scale - weight).abs()
    # Between two numbers of e4m3: 2^-4 of the number, and below 2^-6 a half of 2^-9.
    most = scale / 2 if kind == "int8" else torch.maximum(weight.abs() / 16, scale * 2**-10)
    assert (off <= 1.0001 * most).all()
    assert not off[2].any()


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_every_family(name: str, kind: str) -> None:
    """It computes what the network does whose weights are rounded so."""
    net = unet(name)
    held = copy.deepcopy(net)
    compact(held, kind, torch.float32)
    rounded = 0
    for path, layer in held.named_modules():
        if isinstance(layer, Compact):
            net.get_submodule(path).weight.data = layer.weight
            rounded += 1
    assert rounded > 10
    x, said = latents(2), told(net, 2)
    assert torch.equal(held(x, 500.0, **said), net(x, 500.0, **said))
    assert type(held.conv_in) is nn.Conv2d
    layers = [each for each in held.modules() if isinstance(each, Compact)]
    assert {each.q.element_size() for each in layers} == {1}
    whole = (nn.Linear, nn.Conv2d)
    left = [n for n, each in held.named_modules() if isinstance(each, whole) and "block" in n]
    assert left == []


def last(run: sdcore.Run) -> Tensor:
    with torch.inference_mode():
        *_, step = run
    return step.x_next


@pytest.mark.parametrize("memory", ["fast", "balanced", "low"])
def test_a_picture_says_so_and_is_drawn_again(tiny_path: Path, memory: str) -> None:
    how = {"device": "cpu", "memory": memory}
    sd = sdcore.load(tiny_path, weights="int8", **how)
    run = sd.prepare("red", seeds=[1], steps=2)
    assert run.settings[0].weights == "int8"
    assert run.settings[0].engine == "plain"
    again = sdcore.load(tiny_path, weights=run.settings[0].weights, **how)
    assert torch.equal(last(again.prepare("red", seeds=[1], steps=2)), last(run))
    exact = last(sdcore.load(tiny_path, **how).prepare("red", seeds=[1], steps=2))
    assert 1e-5 < float((last(run) - exact).norm() / exact.norm()) < 0.1


def test_what_does_not_go_with_it(tiny_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean int8"):
        sdcore.load(tiny_path, device="cpu", weights="int4")
    sd = sdcore.load(tiny_path, device="cpu", weights="fp8")
    with pytest.raises(InputError, match="held in fp8: leave --weights out"):
        sd.with_lora("any.safetensors")
    with pytest.raises(InputError, match="a layer is a Compact"):
        sd.prepare("red", lossy="deepcache")
