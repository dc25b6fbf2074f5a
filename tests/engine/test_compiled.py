"""`--engine compile`."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sdcore
from sdcore.engine import compiled, ready, ready_decoder
from sdcore.errors import InputError
from sdcore.images import to_tensor
from sdcore.models import UNet, UNetConfig
from tests.engine.networks import DOWN, UP, latents, random, told, vae

SMALLEST = {
    "block_out_channels": (8,),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "mid_block_type": None,
    "down_block_types": (DOWN,),
    "up_block_types": (UP,),
}


def smallest() -> UNet:
    """A UNet that is traced in no time."""
    network = random(UNet(UNetConfig(**SMALLEST)))
    assert isinstance(network, UNet)
    return network


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Traced as for a compiler, and then run as it is; a number for each time that it is traced."""
    traced: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        traced.append(len(inputs))
        return graph

    torch._dynamo.reset()
    compiled._compiled.cache_clear()
    compiling = functools.partial(torch.compile, backend=backend)
    monkeypatch.setattr(torch, "compile", lambda f, mode, dynamic: compiling(f, dynamic=dynamic))
    yield traced
    compiled._compiled.cache_clear()
    torch._dynamo.reset()


def test_once_for_all_times_and_all_runs(counted: list[int]) -> None:
    net = smallest()
    said = told(net, 2)
    ready(net, [], "compile")(latents(2), 900.0, **said)
    first = len(counted)
    assert first >= 1
    for t in (500.0, 33.3, 1):
        out = ready(net, [], "compile")(latents(2), t, **said)
        assert apart(out, net(latents(2), t, **said)) < 1e-5
    assert len(counted) == first


def test_gradients_go_through_the_plain_network(counted: list[int]) -> None:
    net, x = smallest(), latents(2).requires_grad_()
    ready(net, [], "compile")(x, 10.0, **told(net, 2)).square().sum().backward()
    assert x.grad is not None
    assert counted == []


def test_the_decoder(counted: list[int]) -> None:
    net, z = vae(), torch.randn(1, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    assert apart(ready_decoder(net, "compile")(z), net.decode(z)) < 1e-5
    assert counted


def test_where_nothing_compiles(counted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no compiler found")

    monkeypatch.setattr(torch, "compile", lambda f, **_: torch._dynamo.optimize(fails)(f))
    net = smallest()
    with pytest.raises(InputError, match="no compiler found"):
        ready(net, [], "compile")(latents(2), 10.0, **told(net, 2))


@pytest.mark.slow
def test_a_compiler(tiny_path: Path) -> None:
    """The real one, on the smallest of models: a minute or two."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        pytest.skip("needs a C++ compiler")
    torch._dynamo.reset()
    pictures = []
    for engine in ("compile", "plain"):
        run = sdcore.load(tiny_path, device="cpu", engine=engine).prepare("red", steps=4)
        assert run.settings[0].engine == engine
        with run.without_gradients():
            *_, step = run
            pictures.append((step.x_next, to_tensor(run.decode(step.x_next)[0])))
    for compiled_one, plain_one in zip(*pictures, strict=True):
        assert apart(compiled_one, plain_one) < 1e-2  # a picture's values are whole numbers
    assert apart(pictures[0][0], pictures[1][0]) < 1e-4
