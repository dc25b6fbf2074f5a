"""Weights in 8 bits as they are loaded: how far off they are, and what is drawn with them."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sdcore
from sdcore.checkpoints.pack import pack
from sdcore.checkpoints.packed import Packed
from sdcore.errors import InputError
from tests.engine.networks import UNETS, unet


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_no_weight_is_farther_off_than_its_format(name: str, kind: str) -> None:
    net = unet(name)
    held = copy.deepcopy(net)
    pack(held, kind)
    count = 0
    for path, layer in net.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        small, whole = held.get_submodule(path).weight, layer.weight
        assert isinstance(small, Packed) == ("block" in path)
        if not isinstance(small, Packed):
            assert torch.equal(small, whole)
            continue
        assert small.form.data.element_size() == 1
        off = (small.unpacked() - whole).abs()
        if kind == "int8":
            most = whole.abs().flatten(1).amax(dim=1) / 127 / 2
            most = most.view(-1, *[1] * (whole.ndim - 1))
        else:  # between two numbers of e4m3: 2^-4 of the number, and below 2^-6 a half of 2^-9
            most = torch.maximum(whole.abs() / 16, whole.abs().max() / 448 * 2**-10)
        assert (off <= 1.0001 * most).all()
        count += 1
    assert count > 10


def last(run: sdcore.Run) -> Tensor:
    with torch.inference_mode():
        *_, step = run
    return step.x_next


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_picture_says_so_and_is_drawn_again(tiny_path: Path, kind: str) -> None:
    how = {"seeds": [1], "steps": 2}
    run = sdcore.load(tiny_path, device="cpu", weights=kind).prepare("red", **how)
    said = run.settings[0]
    assert (said.weights, said.memory, said.engine) == (kind, "quantized", "plain")
    again = sdcore.load(tiny_path, device="cpu", weights=said.weights, memory=said.memory)
    assert torch.equal(last(again.prepare("red", **how)), last(run))
    exact = last(sdcore.load(tiny_path, device="cpu").prepare("red", **how))
    assert 1e-5 < float((last(run) - exact).norm() / exact.norm()) < 0.2


def test_what_does_not_go_with_it(tiny_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean int8"):
        sdcore.load(tiny_path, device="cpu", weights="int4")
    with pytest.raises(InputError, match="--memory quantized, not fast"):
        sdcore.load(tiny_path, device="cpu", weights="fp8", memory="fast")
    sd = sdcore.load(tiny_path, device="cpu", weights="fp8")
    with pytest.raises(InputError, match="cannot act: this mode of memory moves weights"):
        sd.prepare("red", lossy="deepcache")
