"""Number formats: float32 is float32, and whoever wants it rounded says so."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sdcore
from sdcore.devices import check_finite, choose_dtype, float32_as
from sdcore.errors import InputError
from sdcore.models import VAE, TextEncoder, UNet


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(params=[(True, False), (False, True)], autouse=True)
def before(request: pytest.FixtureRequest) -> Iterator[tuple[bool, bool]]:
    """What the process does by itself, which is nobody's business here."""
    were = flags()
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = request.param
    yield request.param
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = were


@pytest.mark.parametrize("tf32", [False, True])
def test_what_was_asked_for_holds_inside_and_nowhere_else(
    before: tuple[bool, bool], tf32: bool
) -> None:
    with float32_as(tf32):
        assert flags() == (tf32, tf32)
    assert flags() == before
    with pytest.raises(RuntimeError), float32_as(tf32):
        raise RuntimeError
    assert flags() == before


@pytest.mark.parametrize("tf32", [False, True])
def test_every_network_computes_as_asked(
    tiny_path: Path, before: tuple[bool, bool], tf32: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[tuple[bool, bool]]] = {}

    def noting(kind: type, method: str) -> None:
        real = getattr(kind, method)

        def instead(*args: object, **more: object) -> object:
            seen.setdefault(kind.__name__, set()).add(flags())
            return real(*args, **more)

        monkeypatch.setattr(kind, method, instead)

    for kind, method in ((UNet, "forward"), (VAE, "decode"), (TextEncoder, "forward")):
        noting(kind, method)
    # The plain engine: the fast one calls no network by its forward.
    sd = replace(sdcore.load(tiny_path, device="cpu", engine="plain"), tf32=tf32)
    run = sd.prepare("a red house", steps=2)
    x = run.start.x
    for step in run:
        assert flags() == before  # not while the caller looks at a step
        x = step.x_next
    run.decode(x)
    assert seen == {name: {(tf32, tf32)} for name in ("TextEncoder", "UNet", "VAE")}
    assert run.settings[0].dtype == ("tf32" if tf32 else "float32")


def test_tf32_is_of_cuda(tiny_path: Path) -> None:
    assert choose_dtype("tf32", torch.device("cuda")) == torch.float32
    with pytest.raises(InputError, match="tf32 is how CUDA computes, and this is cpu"):
        sdcore.load(tiny_path, device="cpu", dtype="tf32")
    with pytest.raises(InputError, match="did you mean tf32"):
        choose_dtype("tf23", torch.device("cuda"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.weights
def test_float32_on_cuda_is_float32() -> None:
    """One question to the network beside the same one on the CPU, whatever the process allows.

    One only: the next would be about another x, and the network makes the difference grow.
    """
    eps: dict[tuple[str, str], Tensor] = {}
    for device, dtype in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "tf32")):
        run = sdcore.load(device=device, dtype=dtype).prepare(
            "a red house", seeds=[1], steps=4, cfg=1.0
        )
        with torch.inference_mode():
            first = next(iter(run))
        eps[device, dtype] = first.prediction.eps.cpu()
        assert run.settings[0].dtype == dtype
    expected = eps["cpu", "float32"]
    exact, rounded = ((eps["cuda", d] - expected).abs().max().item() for d in ("float32", "tf32"))
    assert exact < 3e-5
    if torch.cuda.get_device_capability() >= (8, 0):  # TF32 came with Ampere
        assert rounded > 10 * exact


def test_numbers_that_are_not_finite_are_told_from_a_sum_that_overflows() -> None:
    largest = torch.full((2, 3), torch.finfo(torch.float32).max)
    check_finite(largest, "the UNet", torch.float32)
    check_finite(torch.full((999,), 60000.0).half(), "the UNet", torch.float16)
    for bad in (math.nan, math.inf, -math.inf):
        one = largest.clone()
        one[1, 2] = bad
        with pytest.raises(InputError, match="the UNet gives numbers that are not finite"):
            check_finite(one, "the UNet", torch.float32)
    both = torch.tensor([math.inf, -math.inf])
    with pytest.raises(InputError, match="in float16: take --dtype float32"):
        check_finite(both.half(), "the VAE", torch.float16)
