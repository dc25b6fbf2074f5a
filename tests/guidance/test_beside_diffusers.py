"""Each guidance beside diffusers' guider, where it has one: whole predictions, to 1e-6.

Sums are compared on outputs of three kinds of network, in float64; what is done to a network on a
small UNet with the same weights in both. Where diffusers does otherwise, a test shows by how much.
"""

import math
from dataclasses import replace

import pytest
import torch

from sdcore.compare.quirks import number
from sdcore.guidance import (
    APG,
    CFG,
    PAG,
    SEG,
    Autoguidance,
    Branches,
    CFGZeroStar,
    Rescale,
    SkippedLayers,
    Sum,
    sources_of,
)
from sdcore.guidance.perturbed import BlurredQuery
from sdcore.lab.worlds import IN_SIGMA
from sdcore.models import UNet, UNetConfig
from sdcore.process import PREDICTION_TYPES, Process, RectifiedFlow
from sdcore.sampling import Prediction

guiders = pytest.importorskip("diffusers.guiders")
utils = pytest.importorskip("diffusers.hooks.smoothed_energy_guidance_utils")
SIGMAS = (14.6, 2.0, 0.7, 0.05)
NETWORKS = {name: replace(IN_SIGMA, prediction_type=name) for name in PREDICTION_TYPES}
NETWORKS["flow"] = RectifiedFlow()  # type: ignore[assignment]
WORSE = {PAG: "perturbed", SEG: "smoothed", SkippedLayers: "skipped", Autoguidance: "weak"}
ALONE = {"guidance_scale": 0.0, "use_original_formulation": True}


def said(sigma: float, process: Process = IN_SIGMA) -> Branches:
    """A network's outputs for every branch; not all alike."""
    generator = torch.Generator().manual_seed(0)

    def drawn() -> torch.Tensor:
        return torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)

    x, uncond = drawn() * (1 + sigma), drawn()
    names = ("cond", *WORSE.values())
    raw = {"uncond": uncond, **{name: 0.7 * uncond + 0.3 * drawn() for name in names}}
    return Branches(raw, x, sigma, process)


def asked(guidance, branches: Branches) -> Prediction:
    """What it makes of those branches alone that it names."""
    names = guidance.branches(branches.sigma)
    only = {name: branches.raw[name] for name in names}
    given = Branches(only, branches.x, branches.sigma, branches.process)
    return guidance.combine(given, branches.x, branches.sigma)


def apart(a: Prediction, b: Prediction) -> float:
    """Of x0 and eps, in units of the largest number where that is above 1."""
    return max(
        ((getattr(a, form) - getattr(b, form)).abs().max() / max(1, getattr(b, form).abs().max()))
        .item() for form in ("x0", "eps")
    )  # fmt: skip


def guider(name: str, layers: str = "", **options):
    """diffusers' guider in the middle of a run. layers: of which of its options these are."""
    if layers:
        start, stop, at = (layers.replace("layers", word) for word in ("start", "stop", "layers"))
        options = {start: 0.0, stop: 1.0, at: [0], **options}
    made = getattr(guiders, name)(**options)
    made.set_state(step=1, num_inference_steps=4, timestep=torch.tensor(500))
    return made


def skip(**options):
    return guider("SkipLayerGuidance", "skip_layer_guidance_layers", **options)


def pag(**options):
    return guider("PerturbedAttentionGuidance", "perturbed_guidance_layers", **options)


def seg(**options):
    return guider("SmoothedEnergyGuidance", "seg_guidance_layers", **options)


# ours; theirs; the branches that theirs is given, by its own names
SUMS = [
    (CFG(7.5), lambda: guider("ClassifierFreeGuidance", guidance_scale=7.5),
     {"pred_uncond": "uncond"}),
    (CFGZeroStar(5.0),
     lambda: guider("ClassifierFreeZeroStarGuidance", guidance_scale=5.0, zero_init_steps=0),
     {"pred_uncond": "uncond"}),
    (Autoguidance(2.5),
     lambda: guider("AutoGuidance", guidance_scale=2.5, auto_guidance_layers=[0], dropout=0.1),
     {"pred_uncond": "weak"}),
    (PAG(3.0), lambda: pag(**ALONE, perturbed_guidance_scale=3.0), {"pred_cond_skip": "perturbed"}),
    (SEG(3.0), lambda: seg(**ALONE, seg_guidance_scale=3.0), {"pred_cond_seg": "smoothed"}),
    (SkippedLayers(2.0), lambda: skip(**ALONE, skip_layer_guidance_scale=2.0),
     {"pred_cond_skip": "skipped"}),
    (Sum((CFG(4.0), PAG(2.0))), lambda: pag(guidance_scale=4.0, perturbed_guidance_scale=2.0),
     {"pred_uncond": "uncond", "pred_cond_skip": "perturbed"}),
    (Sum((CFG(4.0), SEG(2.0))), lambda: seg(guidance_scale=4.0, seg_guidance_scale=2.0),
     {"pred_uncond": "uncond", "pred_cond_seg": "smoothed"}),
    (Sum((CFG(4.0), SkippedLayers(2.0))),
     lambda: skip(guidance_scale=4.0, skip_layer_guidance_scale=2.0),
     {"pred_uncond": "uncond", "pred_cond_skip": "skipped"}),
]  # fmt: skip


def theirs(made, branches: Branches, names) -> Prediction:
    given = {name: branches.raw[branch] for name, branch in names.items()}
    return branches.made_of(made.forward(pred_cond=branches.raw["cond"], **given).pred)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("guidance", "made", "names"), SUMS, ids=[str(row[0])[:40] for row in SUMS]
)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_sums(guidance, made, names, network, sigma):
    branches = said(sigma, NETWORKS[network])
    assert apart(asked(guidance, branches), theirs(made(), branches, names)) <= 1e-6


@pytest.mark.parametrize("network", ["epsilon", "flow"])
def test_cfg_zero_star_stands_still_at_first(network):
    """The paper's zero velocity; after Euler's step x is in the network's form what it was."""
    branches, after = said(3.0, NETWORKS[network]), 2.0
    made = guider("ClassifierFreeZeroStarGuidance", zero_init_steps=2)
    expected = theirs(made, branches, {"pred_uncond": "uncond"})
    found = asked(CFGZeroStar(5.0, zero_above=2.5), branches)
    assert apart(found, expected) == 0
    spread = {"epsilon": lambda sigma: 1, "flow": RectifiedFlow.spread}[network]
    moved = (found.x0 + after * found.eps) / spread(after) - branches.x / spread(3.0)
    assert moved.abs().max() <= 1e-12


def apg(rescale: float = 0.0, momentum: float | None = None, **options):
    made = guider("AdaptiveProjectedGuidance", guidance_scale=6.5, use_original_formulation=True,
                  adaptive_projected_guidance_rescale=rescale, **options)  # fmt: skip
    if momentum is not None:  # as it does when a run begins
        made.momentum_buffer = guiders.adaptive_projected_guidance.MomentumBuffer(momentum)
    return made


# What is not a sum is done to one form, eps or x0, whatever the network says.
FORMED = [
    (lambda form: Rescale(CFG(7.5), 0.7, form),
     lambda: guider("ClassifierFreeGuidance", guidance_scale=7.5, guidance_rescale=0.7)),
    (lambda form: APG(7.5, 0.3, 0.0, form), lambda: apg(eta=0.3)),
    (lambda form: APG(7.5, 1.0, 4.0, form), lambda: apg(4.0, eta=1.0)),
    (lambda form: APG(7.5, 0.0, 4.0, form),
     lambda: apg(4.0, momentum=-0.5, eta=0.0)),
]  # fmt: skip


@pytest.mark.parametrize(("form", "network"), [("eps", "epsilon"), ("x0", "sample")])
@pytest.mark.parametrize(("guidance", "made"), FORMED)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_what_is_done_to_one_form(guidance, made, form, network, sigma):
    """APG's momentum has nothing to add in the first step."""
    branches = said(sigma, NETWORKS[network])
    expected = theirs(made(), branches, {"pred_uncond": "uncond"})
    assert apart(asked(guidance(form), branches), expected) <= 1e-6


# What becomes of a network

FIELDS = {"block_out_channels": (8, 16), "down_block_types": ("CrossAttnDownBlock2D",) * 2,
          "up_block_types": ("CrossAttnUpBlock2D",) * 2, "norm_num_groups": 4,
          "attention_head_dim": 2, "cross_attention_dim": 6, "layers_per_block": 1}  # fmt: skip
MIDDLE = "mid_block.attentions.0.transformer_blocks"
SIGMA = 2.0
ARGUMENTS = (torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)).double(), 500.0,
             torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(2)).double())  # fmt: skip


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet(UNetConfig(**FIELDS)).eval().requires_grad_(False).double()


@pytest.fixture
def same(unet):
    """diffusers' UNet with its weights."""
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(**FIELDS).eval().double()
    network.load_state_dict(unet.state_dict())
    return network


def whole(guidance, unet) -> Prediction:
    ((name, source),) = sources_of(guidance).items()
    raw = {"cond": unet(*ARGUMENTS), name: source.change(unet)(*ARGUMENTS)}
    return asked(guidance, Branches(raw, ARGUMENTS[0] * SIGMA, SIGMA, IN_SIGMA))


def hooked(same, made, name: str, apply) -> Prediction:
    """The plain network, then with diffusers' hooks in it, and its guider."""
    with torch.no_grad():
        cond = same(*ARGUMENTS).sample
        apply(same)
        worse = same(*ARGUMENTS).sample
    branches = Branches({"cond": cond, "worse": worse}, ARGUMENTS[0] * SIGMA, SIGMA, IN_SIGMA)
    return theirs(made, branches, {name: "worse"})


def skipping(**options):
    from diffusers.hooks import LayerSkipConfig, apply_layer_skip

    return lambda network: apply_layer_skip(network, LayerSkipConfig([0], MIDDLE, **options))


def smoothing(blur: float):
    config = utils.SmoothedEnergyGuidanceConfig([0], MIDDLE)
    return lambda network: utils._apply_smoothed_energy_guidance_hook(network, config, blur)


def test_perturbed_attention(unet, same):
    hooks = skipping(skip_attention=False, skip_attention_scores=True, skip_ff=False)
    made = pag(**ALONE, perturbed_guidance_scale=3.0)
    assert apart(whole(PAG(3.0), unet), hooked(same, made, "pred_cond_skip", hooks)) <= 1e-6
    assert apart(whole(PAG(3.0), unet), whole(PAG(0.0001), unet)) > 1e-3


def test_perturbed_attention_by_the_pipelines_processor(unet, same):
    from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0

    attention = same.get_submodule(MIDDLE)[0].attn1
    attention.set_processor(PAGIdentitySelfAttnProcessor2_0())
    x, t, context = ARGUMENTS
    with torch.no_grad():
        cond, worse = same(x.repeat(2, 1, 1, 1), t, context.repeat(2, 1, 1)).sample.chunk(2)
    expected = cond + 3.0 * (cond - worse)
    assert (whole(PAG(3.0), unet).eps - expected).abs().max() <= 1e-6


def test_skipped_layers(unet, same):
    made = skip(**ALONE, skip_layer_guidance_scale=2.0)
    expected = hooked(same, made, "pred_cond_skip", skipping())
    assert apart(whole(SkippedLayers(2.0), unet), expected) <= 1e-6


def test_smoothed_energy_has_its_two_blurs_exchanged_there(unet, same):
    """Its finite blur is our infinite one, which is what the paper's code does for that."""
    finite = hooked(same, seg(**ALONE, seg_guidance_scale=3.0), "pred_cond_seg", smoothing(2.0))
    assert apart(whole(SEG(3.0), unet), finite) <= 1e-6
    assert apart(whole(SEG(3.0, blur=2.0), unet), finite) > 1e-4
    one = torch.zeros(1, 64, 1, dtype=torch.float64)
    one[0, 27] = 1
    left = utils._gaussian_blur_2d(one.clone(), 7, 1.0, 9999.0)[0, 27].item()
    assert left == pytest.approx(number("diffusers.seg.two_blurs"))
    blurred = BlurredQuery(torch.nn.Identity(), 1.0)
    blurred.side = (8, 8)
    assert blurred(one)[0, 27].item() == pytest.approx(1 / (2 * math.pi), rel=0.02)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_three_guiders_are_off_in_the_first_step_there(sigma):
    branches = said(sigma)
    for made, names in (
        (pag(**ALONE), {"pred_cond_skip": "perturbed"}),
        (seg(**ALONE), {"pred_cond_seg": "smoothed"}),
        (skip(**ALONE), {"pred_cond_skip": "skipped"}),
    ):
        made.set_state(step=0, num_inference_steps=4, timestep=torch.tensor(999))
        there = theirs(made, branches, names)
        added = apart(there, branches["cond"])
        assert added == number("diffusers.guiders.not_in_the_first_step")
    assert apart(asked(PAG(2.8), branches), branches["cond"]) > 0.1


def test_an_infinite_blur_there_is_a_box(unet, same):
    infinite = hooked(same, seg(**ALONE, seg_guidance_scale=3.0), "pred_cond_seg", smoothing(1e7))
    assert apart(whole(SEG(3.0), unet), infinite) > 1e-4


def test_a_blur_is_the_papers_away_from_the_edges():
    """There it is cut off at 3 standard deviations and mirrored at the edges; ours is neither."""
    query = torch.randn(1, 24 * 24, 3, generator=torch.Generator().manual_seed(3)).double()
    blurred = BlurredQuery(torch.nn.Identity(), 1.5)
    blurred.side = (24, 24)
    expected = utils._gaussian_blur_2d(query.clone(), math.ceil(9) | 1, 1.5, 0.0)
    inner = (slice(None), slice(6, -6), slice(6, -6))
    found, paper = (each.unflatten(1, (24, 24))[inner] for each in (blurred(query), expected))
    assert (found - paper).abs().max() <= 0.01 * query.std()


def test_apg_without_momentum_answers_the_same_question_the_same():
    """diffusers' momentum does not: what it says depends on how often it has been asked."""
    branches, names = said(2.0, NETWORKS["sample"]), {"pred_uncond": "uncond"}
    made = apg(momentum=-0.5, eta=0.0)
    first, second = (theirs(made, branches, names) for _ in range(2))
    ours = [asked(APG(7.5), branches) for _ in range(2)]
    assert apart(ours[0], first) <= 1e-6
    assert apart(first, second) > 0.1
    assert torch.equal(ours[0].x0, ours[1].x0)
