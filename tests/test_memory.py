"""Modes of memory: the same picture with less that is ready at a time."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import sdcore
import sdcore.loading
from sdcore.checkpoints import Component
from sdcore.errors import InputError
from sdcore.memory import MODES, apply, choose, leaner, next_ready
from sdcore.models.layers import attend
from sdcore.networks import Networks
from sdcore.pipeline import StableDiffusion
from sdcore.stored_weights import Store, by_layer, by_turns

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
    assert modes == [mode for mode in MODES if mode != "quantized"]


def test_weights_kept_on_the_device_go_back_to_the_cpu_where_memory_is_short() -> None:
    assert (leaner("quantized"), next_ready("quantized")) == ("low", "low")
    assert next_ready("low") is None
    assert [next_ready(mode) for mode in ("fast", "balanced")] == ["balanced", "low"]


@torch.inference_mode()
def drawn(memory: str) -> tuple[torch.Tensor, bytes]:
    run = sdcore.load(device="cpu", memory=memory, engine="plain").prepare("a red house", steps=2)
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


@pytest.fixture
def half(tiny_path: Path, tmp_path: Path) -> Path:
    """A model whose files hold halves, as most do."""
    folder = tmp_path / "half"
    shutil.copytree(tiny_path, folder)
    for file in folder.rglob("*.safetensors"):
        save_file({k: t.half() for k, t in load_file(file).items()}, file)
    return folder


def load(model: Path | str, mode: str) -> StableDiffusion:
    """In one form in every mode, for the fast form is there in one of them only."""
    return sdcore.load(model, "cpu", memory=mode, engine="plain")


def halves(sd: Networks) -> float:
    """The share of the UNet's numbers that lie in memory as halves."""
    sizes = [(p.numel(), p.dtype == torch.float16) for p in sd.unet.parameters()]
    return sum(n for n, is_half in sizes if is_half) / sum(n for n, _ in sizes)


def picture(sd: StableDiffusion) -> torch.Tensor:
    *_, last = sd.prepare("a red house", steps=2)
    return last.x_next


def in_mode(sd: StableDiffusion, mode: str) -> StableDiffusion:
    while sd.memory != mode:
        after = sd.leaner()
        assert after is not None
        sd = after
    return sd


@pytest.mark.parametrize("mode", ["balanced", "low"])
def test_a_leaner_mode_needs_no_more_than_if_it_were_the_first(half: Path, mode: str) -> None:
    first, later = load(half, mode), load(half, "fast")
    expected = picture(later)
    assert halves(later) == 0
    picture(replace(later, engine="auto"))  # which lays weights in an order of its own
    later = in_mode(later, mode)
    assert picture(later).equal(expected)
    assert picture(first).equal(expected)
    dtypes = [{n: p.dtype for n, p in sd.unet.named_parameters()} for sd in (first, later)]
    assert dtypes[0] == dtypes[1]
    assert halves(in_mode(later, "low")) == 1


def test_what_an_adapter_changed_is_kept(half: Path, tmp_path: Path) -> None:
    sd = load(half, "fast")
    place = "mid_block.resnets.0.conv1"
    shape = sd.unet.get_submodule(place).weight.shape
    delta = {f"lora_unet_{place.replace('.', '_')}.diff": 0.01 * torch.ones(shape)}
    save_file(delta, tmp_path / "full.safetensors")
    adapted = sd.with_lora(tmp_path / "full.safetensors")
    plain, changed = picture(sd), picture(adapted)
    assert not plain.equal(changed)
    picture(replace(adapted, engine="auto"))
    low = in_mode(adapted, "low")
    assert picture(low).equal(changed)
    assert 0.9 < halves(low) < 1
    assert picture(low.without_loras()).equal(plain)


def test_a_file_that_changed_is_not_read_again(half: Path) -> None:
    sd = load(half, "fast")
    expected = picture(sd)
    for file in half.rglob("*.safetensors"):
        others = {k: t + 1 for k, t in load_file(file).items()}
        file.unlink()  # what is mapped stays what it was
        save_file(others, file)
    low = in_mode(sd, "low")
    assert picture(low).equal(expected)


@pytest.mark.parametrize("mode", ["fast", "balanced", "low"])
def test_a_hook_of_the_users_is_kept(half: Path, tmp_path: Path, mode: str) -> None:
    """In every mode, on the way to the leanest, under an adapter and without it again."""
    sd = load(half, mode)
    seen: list[str] = []
    layer = sd.unet.mid_block.resnets[0].conv1
    layer.register_forward_hook(partial(lambda name, *_: seen.append(name), "after"))
    layer.register_forward_pre_hook(partial(lambda name, *_: seen.append(name), "before"))
    both = ["before", "after"]

    def drawn_with(sd: StableDiffusion) -> list[str]:
        seen.clear()
        picture(sd)
        return seen[:2]

    assert drawn_with(sd) == both
    delta = {"lora_unet_mid_block_resnets_0_conv2.diff": torch.ones(layer.weight.shape)}
    save_file(delta, tmp_path / "full.safetensors")
    adapted = sd.with_lora(tmp_path / "full.safetensors")
    assert drawn_with(adapted) == both
    assert drawn_with(adapted.without_loras()) == both
    assert drawn_with(in_mode(adapted, "low")) == both
    assert drawn_with(sd) == both
    low = in_mode(sd, "low")
    assert drawn_with(low) == both
    assert drawn_with(low.with_lora(tmp_path / "full.safetensors")) == both


def test_loading_goes_on_in_a_leaner_mode(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, real = picture(load(half, "fast")), sdcore.loading.load_component
    ready: list[bool] = []

    def short(
        component: Component, device: object, dtype: torch.dtype | None, packed: bool
    ) -> nn.Module:
        ready.append(dtype is not None)
        if dtype is not None and len(ready) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return real(component, device, dtype, packed)

    monkeypatch.setattr(sdcore.loading, "load_component", short)
    sd = load(half, "fast")
    assert sd.memory == "balanced"
    assert "out of memory while loading; going on with --memory balanced" in sd.notes
    assert picture(sd).equal(expected)

    def none(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(sdcore.loading, "load_component", none)
    with pytest.raises(InputError, match="out of memory on cpu while loading"):
        load(half, "fast")
