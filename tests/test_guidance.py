"""Classifier-free guidance: its formula, its two ends, and that sigma decides."""

import math

import pytest
import torch

from sdcore.errors import InputError
from sdcore.guidance import CFG

RAW = {"uncond": torch.tensor([1.0, -2.0]), "cond": torch.tensor([3.0, 0.5])}


@pytest.mark.parametrize("scale", [-1.0, 0.5, 2, 7.5, 30.0])
def test_formula(scale):
    expected = RAW["uncond"] + scale * (RAW["cond"] - RAW["uncond"])
    assert CFG(scale).branches(1.0) == ("uncond", "cond")
    assert (CFG(scale).combine(RAW, 1.0) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(("scale", "name"), [(1, "cond"), (1.0, "cond"), (0, "uncond")])
def test_one_branch_suffices(scale, name):
    assert CFG(scale).branches(3.0) == (name,)
    assert CFG(scale).combine({name: RAW[name]}, 3.0) is RAW[name]


def test_limits_are_in_sigma():
    guidance = CFG(5.0, sigma_low=0.3, sigma_high=5.0)
    names = [guidance.branches(sigma) for sigma in (14.6, 5.0, 1.0, 0.3, 0.29)]
    both, off = ("uncond", "cond"), ("cond",)
    assert names == [off, both, both, both, off]


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf])
def test_scale_must_be_finite(scale):
    with pytest.raises(InputError, match="finite"):
        CFG(scale)


def test_arguments_are_left_alone():
    before = {name: value.clone() for name, value in RAW.items()}
    CFG(7.5).combine(RAW, 1.0)
    assert all(torch.equal(RAW[name], before[name]) for name in RAW)


def test_guidance_is_frozen():
    with pytest.raises(AttributeError):
        CFG(2.0).scale = 3.0  # type: ignore[misc]
