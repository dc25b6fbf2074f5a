"""Classifier-free guidance: its formula, its two ends, and that sigma decides."""

import math

import pytest
import torch

from sdcore.errors import InputError
from sdcore.guidance import CFG, Branches
from sdcore.process import PREDICTION_TYPES, VariancePreserving
from sdcore.schedulers.noise_schedule import STABLE_DIFFUSION

RAW = {"uncond": torch.tensor([1.0, -2.0]), "cond": torch.tensor([3.0, 0.5])}
X = torch.tensor([4.0, -1.0])


def said(sigma: float = 1.0, prediction_type: str = "epsilon", **raw: torch.Tensor) -> Branches:
    return Branches(raw or RAW, X, sigma, VariancePreserving(STABLE_DIFFUSION, prediction_type))


@pytest.mark.parametrize("scale", [-1.0, 0.5, 2, 7.5, 30.0])
def test_formula(scale):
    expected = RAW["uncond"] + scale * (RAW["cond"] - RAW["uncond"])
    assert CFG(scale).branches(1.0) == ("uncond", "cond")
    assert (CFG(scale).combine(said(), X, 1.0).eps - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("sigma", [0.1, 1.0, 14.6])
def test_it_is_the_networks_own_output_that_is_guided(prediction_type, sigma):
    """One rounding for the sum and one for the conversion, as pipelines do it."""
    raw = torch.lerp(RAW["uncond"], RAW["cond"], 7.5)
    expected = VariancePreserving(STABLE_DIFFUSION, prediction_type).x0_eps(raw, X, sigma)
    found = CFG(7.5).combine(said(sigma, prediction_type), X, sigma)
    assert torch.equal(found.x0, expected[0])
    assert torch.equal(found.eps, expected[1])


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_predictions_of_two_networks_are_guided_alike(prediction_type):
    """Where no common output is at hand: x0 and eps are, which is the same but for rounding."""
    sigma, both = 2.0, said(2.0, prediction_type)
    apart = {name: both[name] for name in both}
    one, other = (CFG(7.5).combine(p, X, sigma) for p in (both, apart))
    assert (one.x0 - other.x0).abs().max() <= 2e-5
    assert (one.eps - other.eps).abs().max() <= 2e-5


@pytest.mark.parametrize(("scale", "name"), [(1, "cond"), (1.0, "cond"), (0, "uncond")])
def test_one_branch_suffices(scale, name):
    assert CFG(scale).branches(3.0) == (name,)
    assert CFG(scale).combine(said(**{name: RAW[name]}), X, 3.0).eps is RAW[name]


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
    CFG(7.5).combine(said(), X, 1.0)
    assert all(torch.equal(RAW[name], before[name]) for name in RAW)


def test_guidance_is_frozen():
    with pytest.raises(AttributeError):
        CFG(2.0).scale = 3.0  # type: ignore[misc]
