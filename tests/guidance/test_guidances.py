"""Each guidance: off where it is neutral, and its paper's formula."""

import math
from dataclasses import replace

import pytest
import torch

from sdcore.errors import InputError
from sdcore.guidance import (
    APG,
    CFG,
    GUIDANCES,
    PAG,
    SEG,
    Autoguidance,
    Branches,
    CFGPlusPlus,
    CFGZeroStar,
    Composed,
    Interval,
    PerpNeg,
    Rescale,
    SkippedLayers,
    Sum,
    Threshold,
    Varying,
    branch_names,
    resolve,
    sources_of,
    write,
)
from sdcore.lab.worlds import IN_SIGMA
from sdcore.models import UNet, UNetConfig
from sdcore.sampling import Prediction

SIGMAS = (14.6, 2.0, 0.7, 0.05)
NAMES = ("uncond", "cond", "empty", "weak", "perturbed", "smoothed", "skipped", "cond 2")


def said(sigma: float, dtype=torch.float64, seed: int = 0) -> Branches:
    """An eps network's outputs for every branch; not all alike."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64) * (1 + sigma)
    raw = {name: torch.randn(x.shape, generator=generator, dtype=torch.float64) for name in NAMES}
    raw = {name: (0.7 * raw["uncond"] + 0.3 * eps).to(dtype) for name, eps in raw.items()}
    return Branches(raw, x.to(dtype), sigma, IN_SIGMA)


def asked(guidance, branches: Branches) -> Prediction:
    """What it makes of those branches alone that it names."""
    names = guidance.branches(branches.sigma)
    only = {name: branches.raw[name] for name in names}
    given = Branches(only, branches.x, branches.sigma, branches.process)
    return guidance.combine(given, branches.x, branches.sigma)


def apart(a: Prediction, b: Prediction) -> float:
    return max((a.x0 - b.x0).abs().max().item(), (a.eps - b.eps).abs().max().item())


# guidance, what it is where it is neutral, and how far from that rounding may take it in float64
NEUTRAL = [
    (Interval(CFG(7.5)), CFG(7.5), 0),
    (Sum((CFG(7.5), CFG(1))), CFG(7.5), 1e-12),
    (Rescale(CFG(7.5), share=0), CFG(7.5), 0),
    (Varying((7.5, 7.5), (10.0, 0.1)), CFG(7.5), 0),
    (CFGPlusPlus(0), CFG(0), 0),
    (APG(7.5, eta=1), CFG(7.5), 0),
    (APG(1), CFG(1), 0),
    (CFGZeroStar(1), CFG(1), 0),
    (Threshold(CFG(7.5), least=math.inf), CFG(7.5), 0),
    (Threshold(CFG(7.5), ratio=1, least=1e9), CFG(7.5), 1e-6),  # x0 / 1e9 * 1e9
    (Autoguidance(1), CFG(1), 0),
    (PAG(0), CFG(1), 0),
    (SEG(0), CFG(1), 0),
    (SkippedLayers(0), CFG(1), 0),
    (Composed(7.5), CFG(7.5), 0),
    (Composed(7.5, ("",), (1.0, 0.0)), CFG(7.5), 1e-12),
]


@pytest.mark.parametrize(("guidance", "plain", "limit"), NEUTRAL, ids=lambda v: str(v)[:60])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_where_it_is_neutral(guidance, plain, limit, sigma):
    branches = said(sigma)
    found, expected = asked(guidance, branches), asked(plain, branches)
    assert apart(found, expected) <= limit * (1 + sigma)
    if limit == 0:
        assert guidance.branches(sigma) == plain.branches(sigma)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_perp_neg_of_no_strength_is_cfg_away_from_no_words(sigma):
    branches = said(sigma)
    plain = replace_branch(branches, "uncond", branches.raw["empty"])
    assert apart(asked(PerpNeg(7.5, 0), branches), asked(CFG(7.5), plain)) == 0
    same = replace_branch(branches, "uncond", branches.raw["empty"])
    assert apart(asked(PerpNeg(7.5, 1), same), asked(CFG(7.5), same)) <= 1e-12 * (1 + sigma)


def replace_branch(branches: Branches, name: str, value: torch.Tensor) -> Branches:
    raw = {**branches.raw, name: value}
    return Branches(raw, branches.x, branches.sigma, branches.process)


GUIDED = [Rescale(CFG(7.5)), Rescale(APG(5.0), 0.5), Varying((9.0, 2.0), (10.0, 0.1)),
          APG(7.5), APG(7.5, 0.5, 3.0, "eps"), CFGZeroStar(5.0), Threshold(CFG(9.0), 0.9, 1.0),
          PerpNeg(), Autoguidance(2.0), PAG(), SEG(), SkippedLayers(2.0),
          Composed(5.0, ("a boat",), (1.0, 0.5)), Sum((CFG(3.0), PAG(2.0)))]  # fmt: skip


@pytest.mark.parametrize("guidance", GUIDED, ids=lambda v: str(v)[:60])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_x_stays_what_it_is(guidance, sigma):
    """x0 + sigma eps is x, and the arguments are left alone. (CFG++ gives that up by intent.)"""
    branches = said(sigma)
    before = {name: value.clone() for name, value in branches.raw.items()}
    found = asked(guidance, branches)
    assert (found.x0 + sigma * found.eps - branches.x).abs().max() <= 1e-11 * (1 + sigma)
    assert apart(found, asked(CFG(1), branches)) > 1e-3 * min(1, sigma)
    assert all(torch.equal(branches.raw[name], value) for name, value in before.items())


@pytest.mark.parametrize("guidance", [*GUIDED, CFGPlusPlus(0.4)], ids=lambda v: str(v)[:60])
def test_the_written_form_comes_back(guidance):
    assert resolve(write(guidance)) == guidance


def test_every_name_of_the_table_is_one(monkeypatch):
    for name in GUIDANCES:
        guidance = resolve(name, scale=3.0)
        assert resolve(write(guidance)) == guidance
        assert branch_names(guidance, SIGMAS)
        named = set(branch_names(guidance, SIGMAS)) - {"cond", "uncond"}
        assert named <= set(sources_of(guidance))


def test_rescaled_spread_is_conds():
    branches = said(2.0)
    for form in ("eps", "x0"):
        found = asked(Rescale(CFG(9.0), 1.0, form), branches)
        value = getattr(found, form).std((1, 2, 3))
        assert (value - getattr(branches["cond"], form).std((1, 2, 3))).abs().max() <= 1e-12


def test_apg_without_eta_moves_across_cond_only():
    branches = said(2.0)
    for form in ("eps", "x0"):
        found, cond = (getattr(p, form) for p in (asked(APG(7.5, 0, 0, form), branches),
                                                  branches["cond"]))  # fmt: skip
        assert ((found - cond) * cond).sum((1, 2, 3)).abs().max() <= 1e-9


def test_cfg_plus_plus_is_its_step():
    """Algorithm 2 of the paper: DDIM with x0 guided and uncond's noise."""
    branches, lam, after = said(2.0), 0.6, 1.2
    found = asked(CFGPlusPlus(lam), branches)
    eps = branches.raw["uncond"] + lam * (branches.raw["cond"] - branches.raw["uncond"])
    expected = (branches.x - 2.0 * eps) + after * branches.raw["uncond"]
    assert (found.x0 + after * found.eps - expected).abs().max() <= 1e-12


def test_threshold_is_the_papers():
    branches = said(2.0)
    x0 = asked(CFG(9.0), branches).x0
    found = asked(Threshold(CFG(9.0), 0.95, 1.0), branches).x0
    for i in range(2):
        s = max(1.0, torch.quantile(x0[i].abs().flatten(), 0.95).item())
        assert (found[i] - x0[i].clamp(-s, s) / s).abs().max() <= 1e-12


def test_a_scale_that_varies():
    guidance = Varying((8.0, 2.0), (10.0, 0.1))
    assert [guidance.at(s) for s in (20.0, 10.0, 1.0, 0.1, 0.01)] == pytest.approx([8, 8, 5, 2, 2])
    assert Varying((1.0, 3.0), (10.0, 0.1)).branches(12.0) == ("cond",)
    with pytest.raises(InputError, match="sigmas that fall"):
        Varying((1.0, 2.0), (1.0, 2.0))


CONFIG = UNetConfig(block_out_channels=(8, 16), down_block_types=("CrossAttnDownBlock2D",) * 2,
                    up_block_types=("CrossAttnUpBlock2D",) * 2, norm_num_groups=4,
                    attention_head_dim=2, cross_attention_dim=6, layers_per_block=1)  # fmt: skip


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet(CONFIG).eval().requires_grad_(False)


ARGUMENTS = (torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), 500.0,
             torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(2)))  # fmt: skip


WORSE = [PAG(), SEG(), SEG(blur=2.0), SkippedLayers(), PAG(layers=("up_blocks.0", "mid_block"))]


@pytest.mark.parametrize("guidance", WORSE, ids=str)
def test_a_worse_network_shares_every_weight_and_leaves_the_first_alone(unet, guidance):
    before, state = unet(*ARGUMENTS), {k: v.clone() for k, v in unet.state_dict().items()}
    (source,) = sources_of(guidance).values()
    worse = source.change(unet)
    assert not torch.equal(worse(*ARGUMENTS), before)
    assert torch.equal(unet(*ARGUMENTS), before)
    assert {p.data_ptr() for p in worse.parameters()} <= {p.data_ptr() for p in unet.parameters()}
    assert all(torch.equal(unet.state_dict()[key], value) for key, value in state.items())


def test_no_blur_is_no_change(unet):
    worse = sources_of(SEG(blur=0.0))["smoothed"].change(unet)
    assert (worse(*ARGUMENTS) - unet(*ARGUMENTS)).abs().max() <= 1e-5
    wide, mean = (sources_of(SEG(blur=b))["smoothed"].change(unet) for b in (1e4, math.inf))
    assert (wide(*ARGUMENTS) - mean(*ARGUMENTS)).abs().max() <= 1e-5


def test_layers_that_are_not_there_are_refused(unet):
    with pytest.raises(InputError, match="no attention in mid_blok"):
        sources_of(PAG(layers=("mid_blok",)))["perturbed"].change(unet)
    with pytest.raises(InputError, match="a weight for the prompt"):
        Composed(7.5, ("a",), (1.0,))
    assert replace(PAG(), strength=0).branches(1.0) == ("cond",)
