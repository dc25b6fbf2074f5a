"""The Triton kernels beside float64, compiled on a GPU and interpreted without one."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.engine.interpreted import DEVICE, kernels

k = kernels()


def apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 320, 6, 6), 32),  # several blocks of columns, the last one narrower
        ((2, 24, 5, 7), 4),  # sides and widths that no power of 2 divides
        ((1, 32, 20, 24), 8),  # several chunks, the last one shorter
        ((1, 64, 3, 3), 8),  # less than one tile of rows
    ],
)
@pytest.mark.parametrize("silu", [True, False])
def test_group_norm(shape: tuple[int, ...], groups: int, silu: bool) -> None:
    batch, channels = shape[:2]
    # A mean of 50 deviations: sums of squares would lose all but three digits in float32.
    x = (random(*shape) + 50).contiguous(memory_format=torch.channels_last)
    weight, bias = random(2, channels, seed=1)
    for rows in {1, batch}:
        shift = random(rows, channels, seed=2)
        out = k.group_norm(x, weight, bias, groups, 1e-5, shift, silu)
        whole = x.double() + shift.double()[:, :, None, None]
        right = F.group_norm(whole, groups, weight.double(), bias.double(), 1e-5)
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert apart(out, F.silu(right) if silu else right) < 3e-6


@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 4e-4), (torch.bfloat16, 4e-3)])
def test_halves_are_rounded_once(dtype: torch.dtype, most: float) -> None:
    x = random(2, 64, 6, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = random(2, 64, seed=1)
    shift = random(1, 64, seed=2)
    out = k.group_norm(x, weight, bias, 8, 1e-5, shift, True)
    whole = x.double() + shift.double()[:, :, None, None]
    right = F.silu(F.group_norm(whole, 8, weight.double(), bias.double(), 1e-5))
    assert out.dtype == dtype
    assert apart(out, right) < most


def test_add_and_layer_norm() -> None:
    x, residual = random(2, 2, 5, 40)
    bias, weight, offset = random(3, 40, seed=1)
    right = x.double() + bias.double() + residual.double()
    assert apart(k.add(x.clone(), bias, residual), right) < 1e-6
    y, normed = k.add_layer_norm(x.clone(), bias, residual, weight, offset, 1e-5)
    assert apart(y, right) < 1e-6
    assert apart(normed, F.layer_norm(right, (40,), weight.double(), offset.double())) < 1e-6
    y, _ = k.add_layer_norm(x.clone(), bias, None, weight, offset, 1e-5)
    assert apart(y, x.double() + bias.double()) < 1e-6


def test_geglu() -> None:
    x = 3 * random(2, 5, 80)
    hidden, gate = x.double().chunk(2, dim=-1)
    assert apart(k.geglu(x), hidden * F.gelu(gate)) < 1e-6


def test_it_is_tried_before_it_is_used() -> None:
    assert k.available(torch.device(DEVICE))


@pytest.mark.parametrize("made_in_inference_mode", [False, True])
def test_a_layer_whose_weight_is_laid_anew_still_runs(made_in_inference_mode: bool) -> None:
    from sdcore.engine.calls import untracked
    from sdcore.engine.cuda import channels_last, side_by_side

    with torch.inference_mode(made_in_inference_mode):
        conv, q, v = (torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(6, 4), torch.nn.Linear(6, 5))
        x, y = torch.randn(1, 3, 5, 5), torch.randn(2, 6)
    with torch.inference_mode():
        expected = [layer(of) for layer, of in ((conv, x), (q, y), (v, y))]
    with untracked():
        channels_last(conv)
        both = side_by_side((q, v))
        assert both.data_ptr() == q.weight.data_ptr()
    with torch.inference_mode():
        for layer, of, right in zip((conv, q, v), (x, y, y), expected, strict=True):
            assert torch.allclose(layer(of), right, atol=1e-6)
