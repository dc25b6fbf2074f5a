"""Each guidance: off where it is neutral, its paper's formula, diffusers' guider, known laws."""

import math
from dataclasses import replace

import pytest
import torch

from sdcore.denoiser import Denoiser
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
from sdcore.lab import Gaussian, Mixture
from sdcore.lab.worlds import IN_SIGMA
from sdcore.models import UNet, UNetConfig
from sdcore.sampling import Prediction, sample
from sdcore.schedulers import resolve as scheduler_named

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


# ours, diffusers' class, its options; both get an eps network's outputs
GUIDERS = [
    (CFG(7.5), "ClassifierFreeGuidance", {"guidance_scale": 7.5}),
    (Rescale(CFG(7.5), 0.7), "ClassifierFreeGuidance",
     {"guidance_scale": 7.5, "guidance_rescale": 0.7}),
    (APG(7.5, 0.3, 0.0, "eps"), "AdaptiveProjectedGuidance",
     {"guidance_scale": 6.5, "eta": 0.3, "use_original_formulation": True,
      "adaptive_projected_guidance_rescale": 0.0}),
    (APG(7.5, 1.0, 4.0, "eps"), "AdaptiveProjectedGuidance",
     {"guidance_scale": 6.5, "eta": 1.0, "use_original_formulation": True,
      "adaptive_projected_guidance_rescale": 4.0}),
    (CFGZeroStar(5.0), "ClassifierFreeZeroStarGuidance",
     {"guidance_scale": 5.0, "zero_init_steps": 0}),
    (Autoguidance(2.5), "AutoGuidance",
     {"guidance_scale": 2.5, "auto_guidance_layers": [0], "dropout": 0.1}),
    (PAG(3.0), "SkipLayerGuidance",
     {"guidance_scale": 0.0, "use_original_formulation": True,
      "skip_layer_guidance_scale": 3.0, "skip_layer_guidance_layers": [0],
      "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}),
    (Sum((CFG(4.0), SkippedLayers(2.0))), "SkipLayerGuidance",
     {"guidance_scale": 4.0, "skip_layer_guidance_scale": 2.0, "skip_layer_guidance_layers": [0],
      "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}),
]  # fmt: skip


@pytest.mark.parametrize(("guidance", "name", "options"), GUIDERS, ids=lambda v: str(v)[:40])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_diffusers_guider(guidance, name, options, sigma):
    guiders = pytest.importorskip("diffusers.guiders")
    branches = said(sigma, torch.float32)
    theirs = getattr(guiders, name)(**options)
    theirs.set_state(step=1, num_inference_steps=4, timestep=torch.tensor(500))
    raw = branches.raw
    worse = {"PAG": "perturbed", "Sum": "skipped"}.get(type(guidance).__name__)
    given = {"pred_cond": raw["cond"]}
    if type(guidance).__name__ == "Autoguidance":
        given["pred_uncond"] = raw["weak"]
    elif worse != "perturbed":
        given["pred_uncond"] = raw["uncond"]
    if worse is not None:
        given["pred_cond_skip"] = raw[worse]
    expected = theirs.forward(**given).pred
    assert (asked(guidance, branches).eps - expected).abs().max() <= 5e-5


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
    assert [guidance.scale(s) for s in (20.0, 10.0, 1.0, 0.1, 0.01)] == pytest.approx(
        [8, 8, 5, 2, 2]
    )
    assert Varying((1.0, 3.0), (10.0, 0.1)).branches(12.0) == ("cond",)
    with pytest.raises(InputError, match="sigmas that fall"):
        Varying((1.0, 2.0), (1.0, 2.0))


def in_worlds(guidance, **worlds):
    """The guidance in a world for each branch; each of them is exact."""
    told = {"nobody": {"context": torch.zeros(1)}}
    return Denoiser(lambda *_, **__: None, IN_SIGMA, told, guidance, networks=worlds)


START = torch.linspace(-12, 12, 64, dtype=torch.float64).reshape(1, 1, 8, 8)
GRID = [10 * (0.05 / 10) ** (i / 400) for i in range(401)]


def ends(denoise):
    return list(sample(denoise, START, GRID, scheduler_named("heun").solver))[-1].x_next


A, B, C = Gaussian(0.8, 0.5), Gaussian(-0.2, 0.5), Gaussian(0.5, 0.5)


@pytest.mark.parametrize(
    ("guidance", "worlds", "mean"),
    [
        (CFG(3.0), {"cond": A, "uncond": B}, -0.2 + 3 * 1.0),
        (Autoguidance(2.0), {"cond": A, "weak": C}, 0.5 + 2 * 0.3),
        (PAG(2.0), {"cond": A, "perturbed": C}, 0.8 + 2 * 0.3),
        (SEG(1.0), {"cond": A, "smoothed": C}, 0.8 + 0.3),
        (SkippedLayers(1.0), {"cond": A, "skipped": C}, 0.8 + 0.3),
        (Composed(2.0, ("c",), (1.0, 0.5)), {"cond": A, "uncond": B, "cond 2": C}, -0.2 + 2 * 1.35),
        (Sum((CFG(3.0), PAG(2.0))), {"cond": A, "uncond": B, "perturbed": C}, 2.8 + 0.6),
        (PerpNeg(3.0, 0.0), {"cond": A, "empty": B}, 2.8),
    ],
    ids=lambda v: str(v)[:40],
)
def test_the_guided_law_between_gaussians(guidance, worlds, mean):
    """A sum of such scores is the score of the Gaussian at the same sum of means: its flow."""
    exact = Gaussian(mean, 0.5).flow(START, GRID[0], GRID[-1])
    assert (ends(in_worlds(guidance, **worlds)) - exact).abs().max() <= 2e-3


def test_an_interval_in_a_mixture_guides_where_it_says():
    """Above and below the window the flow is cond's own, in it the sharpened one's."""
    sharp = {"cond": Gaussian(0.9, 0.3), "uncond": Mixture()}
    always, window = (ends(in_worlds(g, **sharp)) for g in (CFG(3.0), Interval(CFG(3.0), 0.3, 2.0)))
    never = ends(in_worlds(CFG(1), **sharp))
    spread = [values.std().item() for values in (never, window, always)]
    assert spread[2] < spread[1] < spread[0]


def test_what_tames_high_scales_does():
    """At scale 15 the ends overshoot; each of these brings them nearer to cond's own mean."""
    worlds = {"cond": A, "uncond": B}
    wild = ends(in_worlds(CFG(15.0), **worlds)).mean().item()
    exact = Gaussian(14.8, 0.5).flow(START, GRID[0], GRID[-1]).mean().item()
    assert wild == pytest.approx(exact, abs=0.02)
    tamed = (
        Threshold(CFG(15.0), 0.995, 2.0),
        Interval(CFG(15.0), 0.1, 1.0),
        Varying((1.0, 15.0), (10.0, 0.05)),
    )
    for guidance in tamed:
        assert ends(in_worlds(guidance, **worlds)).mean().item() < wild - 1, guidance


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


def test_pag_is_diffusers_own(unet):
    """Its attention processor for one branch: v alone, through the output's projection."""
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    worse = sources_of(PAG())["perturbed"].change(unet)
    ours = worse.mid_block.attentions[0].transformer_blocks[0].attn1
    x = torch.randn(2, 16, 16)
    assert torch.equal(ours(x), attention.to_out[0](attention.to_v(x)))


def test_layers_that_are_not_there_are_refused(unet):
    with pytest.raises(InputError, match="no attention in mid_blok"):
        sources_of(PAG(layers=("mid_blok",)))["perturbed"].change(unet)
    with pytest.raises(InputError, match="a weight for the prompt"):
        Composed(7.5, ("a",), (1.0,))
    assert replace(PAG(), strength=0).branches(1.0) == ("cond",)
