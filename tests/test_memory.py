"""Modes of memory: the same picture with less that is ready at a time."""

import pytest
import torch
from torch import nn

import sdcore
from sdcore.errors import InputError
from sdcore.memory import (
    MODES,
    Store,
    apply,
    by_layer,
    by_turns,
    choose,
    is_out_of_memory,
    leaner,
)
from sdcore.models.layers import attend

GB = 10**9


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("ids", torch.arange(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x)) + self.ids


def stored(dtype: torch.dtype = torch.float16) -> Net:
    torch.manual_seed(0)
    return Net().to(dtype).requires_grad_(False)


X = torch.linspace(-1, 1, 8).reshape(2, 4)
CPU = torch.device("cpu")


def test_layers_are_ready_only_during_their_own_forward() -> None:
    net, seen = stored(), []
    expected = stored().float()(X)
    by_layer(net, CPU, torch.float32)
    net.a.register_forward_hook(lambda *_: seen.append((net.a.weight.dtype, net.b.weight.dtype)))
    assert net(X).equal(expected)
    assert net(X).equal(expected)
    # The hook above runs after the one that puts a away.
    assert seen == [(torch.float16, torch.float16)] * 2
    assert net.ids.dtype == torch.int64


def test_a_layer_that_fails_is_put_away() -> None:
    net = stored()
    by_layer(net, CPU, torch.float32)
    with pytest.raises(RuntimeError):
        net(torch.ones(2, 3))
    assert net.a.weight.dtype == torch.float16


def test_components_take_turns() -> None:
    first, second = stored(), stored()
    expected = stored().float()(X)
    by_turns({first: torch.float32, second: torch.float32}, CPU)
    dtypes = lambda: (first.a.weight.dtype, second.a.weight.dtype)  # noqa: E731
    assert dtypes() == (torch.float16, torch.float16)
    assert first(X).equal(expected)
    assert dtypes() == (torch.float32, torch.float16)
    weight = first.a.weight
    first(X)
    assert first.a.weight is weight  # still ready, not made ready again
    second.a(X)  # by one of its parts, as a VAE is
    assert dtypes() == (torch.float16, torch.float32)


def test_what_was_made_ready_in_inference_mode_takes_gradients_later() -> None:
    net = stored()
    by_turns({net: torch.float32}, CPU)
    with torch.inference_mode():
        net(X)
    x = X.clone().requires_grad_()
    net(x).sum().backward()
    assert x.grad is not None


def test_storing_changes_no_bit() -> None:
    net = stored()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    store = Store(net.modules(), CPU, torch.float32)
    for _ in range(2):
        store.put_away()
        store.bring()
    store.put_away()
    assert all(value.equal(before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("free", "mode"), [(None, "fast"), (20 * GB, "fast"), (10 * GB, "balanced"), (4 * GB, "low")]
)
def test_the_fastest_mode_that_fits(free: int | None, mode: str) -> None:
    assert choose(None, [GB, 6 * GB, GB], free) == mode


def test_modes_by_name() -> None:
    assert choose("low", [], None) == "low"
    with pytest.raises(InputError, match="unknown memory mode 'lo': did you mean low"):
        choose("lo", [], None)


def test_each_mode_can_follow_the_one_before() -> None:
    net, mode, modes = stored(torch.float32), "fast", ["fast"]
    expected = stored(torch.float32)(X)
    while (after := leaner(mode)) is not None:
        mode = after
        modes.append(mode)
        apply({"unet": net}, mode, CPU, {"unet": torch.float32})
        assert net(X).equal(expected)
        assert len(net.a._forward_pre_hooks) <= 1
    assert modes == list(MODES)


@torch.inference_mode()
def drawn(memory: str) -> tuple[torch.Tensor, bytes]:
    run = sdcore.load(device="cpu", memory=memory).prepare("a red house", steps=2)
    *_, last = run
    return last.x_next, run.decode(last.x_next)[0].tobytes()


@pytest.fixture(scope="module")
def fast() -> tuple[torch.Tensor, bytes]:
    return drawn("fast")


@pytest.mark.weights
@pytest.mark.parametrize("mode", ["sliced", "balanced", "low"])
def test_the_same_picture_in_every_mode(fast: tuple[torch.Tensor, bytes], mode: str) -> None:
    leaner_x, leaner_picture = drawn(mode)
    assert leaner_x.equal(fast[0])
    assert leaner_picture == fast[1]


def test_attention_in_slices_is_attention() -> None:
    q, k, v = torch.randn(3, 2, 50, 16, dtype=torch.float64).unbind()
    whole = attend(q, k, v, heads=2)
    assert (attend(q, k, v, heads=2, rows=7) - whole).abs().max() <= 1e-15


def test_what_running_out_looks_like() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))
