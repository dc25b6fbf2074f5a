"""Weights in an order of somebody else's: what they answer, and how they become plain again."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn

from sdcore.models.reordered import Reordered, reorder, restore


class Backwards:
    """An order that tests can read, with what is asked of an opaque tensor."""

    made = 0

    def __init__(self, weight: Tensor) -> None:
        self.rows = weight.flip(0)
        Backwards.made += 1

    def to_dense(self) -> Tensor:
        return self.rows.flip(0)


def whole(weight: Tensor) -> tuple:
    return (Backwards(weight),)


def halves(weight: Tensor) -> tuple:
    return tuple(map(Backwards, weight.chunk(2)))


@pytest.fixture
def three() -> nn.ModuleList:
    """Three layers whose weights lie side by side, and what these are."""
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(8, rows) for rows in (4, 6, 2)).requires_grad_(False)
    before = [layer.weight.detach().clone() for layer in layers]
    reorder(list(layers), "linear", whole)
    for layer, weight in zip(layers, before, strict=True):
        assert type(layer.weight) is Reordered
        assert torch.equal(layer.weight, weight)
        assert layer.weight.plain is None
    return layers


def test_whoever_computes_gets_the_weight(three: nn.ModuleList) -> None:
    x, layer = torch.randn(5, 8), three[1]
    assert torch.equal(layer(x), F.linear(x, layer.weight.detach(), layer.bias))
    assert torch.equal(layer.weight[2:4].t(), layer.weight.detach()[2:4].t())
    assert layer.weight.half().dtype == torch.float16
    assert layer.weight.shape == (6, 8)
    assert isinstance(layer.weight, nn.Parameter)
    assert type(layer.weight) is Reordered  # and it is where it was


def test_halves_are_one_weight() -> None:
    layer = nn.Linear(8, 6).requires_grad_(False)
    before = layer.weight.detach().clone()
    reorder([layer], "halves", halves)
    assert torch.equal(layer.weight.detach(), before)


def test_gradients_pass_through(three: nn.ModuleList) -> None:
    x = torch.randn(5, 8, requires_grad=True)
    three[0](x).sum().backward()
    assert torch.allclose(x.grad, three[0].weight.detach().sum(0).expand(5, 8))


def test_what_is_written_to_is_plain_from_then_on(three: nn.ModuleList) -> None:
    weight = three[1].weight
    before, version = weight.detach().clone(), weight._version
    assert weight.mul_(2) is weight
    assert torch.equal(weight.detach(), 2 * before)
    assert weight._version > version
    torch._foreach_add_([weight], 1.0)
    assert torch.equal(weight.detach(), 2 * before + 1)
    three[0].load_state_dict({"weight": torch.ones(4, 8), "bias": torch.zeros(4)})
    assert torch.equal(three[0].weight.detach(), torch.ones(4, 8))


def test_a_copy_and_a_file_are_plain(three: nn.ModuleList) -> None:
    other = copy.deepcopy(three)
    assert all(type(layer.weight) is nn.Parameter for layer in other)
    state = three.state_dict()
    read = load(save(state))
    file = io.BytesIO()
    torch.save(three, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    for i, layer in enumerate(three):
        assert torch.equal(other[i].weight, layer.weight.detach())
        assert torch.equal(again[i].weight, layer.weight.detach())
        assert torch.equal(read[f"{i}.weight"], layer.weight.detach())


def test_in_inference_mode(three: nn.ModuleList) -> None:
    before = three[0].weight.detach().clone()
    with torch.inference_mode():
        assert torch.equal(three[0].weight.detach(), before)
        other, state = copy.deepcopy(three), three.state_dict()
        assert torch.equal(three[0].weight.flatten(), before.flatten())
        restore(three)
    for weight in (other[0].weight, state["0.weight"], three[0].weight):
        assert torch.equal(weight, before)
    x = torch.randn(2, 8, requires_grad=True)
    three[0](x).sum().backward()
    assert x.grad is not None


def test_another_number_format(three: nn.ModuleList) -> None:
    before = three[2].weight.detach().clone()
    assert three.to("cpu") is three
    assert torch.equal(three[2].weight.detach(), before)
    three.double()
    assert torch.equal(three[2].weight.detach(), before.double())


def test_restored(three: nn.ModuleList) -> None:
    before = [layer.weight.detach().clone() for layer in three]
    vars(three[1].weight)["noted"] = "by somebody"
    assert restore(three)
    for layer, weight in zip(three, before, strict=True):
        assert type(layer.weight) is nn.Parameter
        assert torch.equal(layer.weight, weight)
        assert layer.weight.untyped_storage().nbytes() == weight.nbytes  # no one else's rows
    assert three[1].weight.noted == "by somebody"
    assert not restore(three)


def test_the_same_order_is_made_once(three: nn.ModuleList) -> None:
    made, layers = Backwards.made, list(three)
    parts = layers[0].weight.parts
    assert reorder(layers, "linear", whole) is parts
    assert Backwards.made == made
    for others, order in ((layers, "other"), (layers[::-1], "linear"), (layers[:2], "linear")):
        right = torch.cat([layer.weight.detach() for layer in others])
        assert torch.equal(reorder(others, order, whole)[0].to_dense(), right)
    layers[0].weight.mul_(2)
    right = layers[0].weight.detach().clone()
    assert torch.equal(reorder(layers[:1], "linear", whole)[0].to_dense(), right)
