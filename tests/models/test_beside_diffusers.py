"""The three networks against diffusers' and transformers', float32, small random configurations.

Between them the configurations hold every block type of SD 1.x, SD 2.x, SDXL, their inpainting
variants and the guidance-distilled UNets.
"""

import pytest
import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.models import (
    VAE,
    TextEncoder,
    TextEncoderConfig,
    TinyVAE,
    TinyVAEConfig,
    UNet,
    UNetConfig,
    VAEConfig,
)
from sdcore.models.freeu import FreeU, with_freeu

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UNETS = {
    "sd1": {"down_block_types": (CROSS, CROSS, PLAIN), "block_out_channels": (32, 64, 64)},
    "sd1-inpaint": {
        "down_block_types": (CROSS, PLAIN),
        "block_out_channels": (32, 64),
        "in_channels": 9,
        "layers_per_block": 2,
    },
    "sd2": {
        "down_block_types": (CROSS, CROSS, PLAIN),
        "block_out_channels": (32, 64, 64),
        "attention_head_dim": (2, 4, 4),
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    "sdxl": {
        "down_block_types": (PLAIN, CROSS, CROSS),
        "block_out_channels": (32, 64, 64),
        "attention_head_dim": (2, 4, 4),
        "transformer_layers_per_block": (1, 2, 3),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24 + 6 * 8,
    },
    "refiner": {
        "down_block_types": (PLAIN, CROSS, PLAIN),
        "block_out_channels": (32, 64, 64),
        "transformer_layers_per_block": 2,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24 + 5 * 8,
    },
    "ssd-1b": {
        "down_block_types": (PLAIN, CROSS, CROSS),
        "block_out_channels": (32, 64, 64),
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, [2, 1], [2, 3]],
        "reverse_transformer_layers_per_block": [[2, 1, 3], [2, 1, 1], 1],
        "mid_block_type": "UNetMidBlock2D",
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24 + 6 * 8,
    },
    "bk-sdm": {
        "down_block_types": (CROSS, CROSS, PLAIN),
        "block_out_channels": (32, 64, 64),
        "mid_block_type": None,
    },
    "layers of its own": {
        "down_block_types": (CROSS, PLAIN),
        "block_out_channels": (32, 64),
        "layers_per_block": (2, 1),
        "sample_size": [16, 24],
    },
    "lcm": {
        "down_block_types": (CROSS, PLAIN),
        "block_out_channels": (32, 64),
        "time_cond_proj_dim": 16,
    },
}


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Max abs error over the reference's largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def randomize(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter random, so that no zero or one hides a mistake."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng))
    return model.eval()


@pytest.mark.parametrize("family", UNETS)
@pytest.mark.parametrize("size", [(16, 16), (10, 14)])  # the second is no multiple of 2^levels
@torch.no_grad()
def test_unet(family: str, size: tuple[int, int]) -> None:
    diffusers = pytest.importorskip("diffusers")
    fields = {
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 40,
        "norm_num_groups": 8,
        **UNETS[family],
    }
    fields["up_block_types"] = tuple(
        name.replace("Down", "Up") for name in reversed(fields["down_block_types"])
    )
    torch.manual_seed(0)
    theirs = randomize(diffusers.UNet2DConditionModel(**fields))
    ours = UNet(UNetConfig.from_dict(dict(theirs.config)))
    ours.load_state_dict(theirs.state_dict(), strict=True)

    x, context = torch.randn(2, fields.get("in_channels", 4), *size), torch.randn(2, 7, 40)
    added, condition = {}, None
    if "addition_embed_type" in fields:
        count = 5 if family == "refiner" else 6
        added = {"text_embeds": torch.randn(2, 24), "time_ids": 100 * torch.rand(2, count)}
    if family == "lcm":
        condition = torch.randn(2, 16)
    for t in (0.0, 37.5, 999.0):
        reference = theirs(
            x, torch.tensor(t), context, added_cond_kwargs=added, timestep_cond=condition
        ).sample
        also = {"timestep_cond": condition} if condition is not None else {}
        out = ours(x, t, context, **added, **also)
        assert relative(out, reference) <= 1e-5
        # One timestep for all, or one for each picture.
        assert torch.equal(out, ours(x, torch.tensor([t, t]), context, **added, **also))


@torch.no_grad()
def test_freeu() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = randomize(
        diffusers.UNet2DConditionModel(
            down_block_types=(CROSS, CROSS, PLAIN),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(32, 64, 64),
            layers_per_block=1,
            attention_head_dim=2,
            cross_attention_dim=40,
            norm_num_groups=8,
        )
    )
    plain = UNet(UNetConfig.from_dict(dict(theirs.config)))
    plain.load_state_dict(theirs.state_dict(), strict=True)
    freed = with_freeu(plain, FreeU(b1=1.4, b2=1.6, s1=0.9, s2=0.2))
    for size in ((16, 16), (10, 14)):
        x, context = torch.randn(2, 4, *size), torch.randn(2, 7, 40)
        theirs.disable_freeu()
        assert relative(plain(x, 37.5, context), theirs(x, 37.5, context).sample) <= 1e-5
        theirs.enable_freeu(s1=0.9, s2=0.2, b1=1.4, b2=1.6)
        reference = theirs(x, 37.5, context).sample
        assert relative(freed(x, 37.5, context), reference) <= 1e-5
        assert relative(plain(x, 37.5, context), reference) > 1e-2
        same = with_freeu(plain, FreeU(1, 1, 1, 1))(x, 37.5, context)
        assert relative(same, plain(x, 37.5, context)) <= 1e-5
    with pytest.raises(InputError, match="b1 must be a finite number"):
        FreeU(b1=float("nan"))


@torch.no_grad()
def test_asymmetric_vae() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = randomize(
        diffusers.AsymmetricAutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            down_block_out_channels=(8, 16, 16),
            up_block_out_channels=(16, 24, 32),
            layers_per_up_block=2,
            norm_num_groups=8,
        )
    )
    ours = VAE(VAEConfig.from_dict(dict(theirs.config)))
    state = {k: t for k, t in theirs.state_dict().items() if ".condition_encoder." not in k}
    ours.load_state_dict(state, strict=True)
    image = torch.rand(1, 3, 24, 32) * 2 - 1
    code = ours.encode(image)
    assert relative(code.mean, theirs.encode(image).latent_dist.mean * 0.18215) <= 1e-5
    latents = torch.randn(code.mean.shape)
    assert relative(ours.decode(latents), theirs.decode(latents / 0.18215).sample) <= 1e-5


@torch.no_grad()
def test_tiny_vae() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = randomize(
        diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8,) * 3,
            decoder_block_out_channels=(8,) * 3,
            num_encoder_blocks=(1, 2, 1),
            num_decoder_blocks=(2, 1, 1),
        )
    )
    raw = dict(theirs.config)
    ours = TinyVAE(TinyVAEConfig.from_dict(raw))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.rand(1, 3, 24, 32) * 2 - 1
    code = ours.encode(image)
    assert relative(code.mean, theirs.encode(image).latents) <= 1e-5
    assert not code.std.any()
    latents = torch.randn(code.mean.shape)
    assert relative(ours.decode(latents), theirs.decode(latents).sample) <= 1e-5
    assert ours.config.factor == 4
    alone = TinyVAE(TinyVAEConfig.from_dict(raw | {"decoder_only": True}))
    with pytest.raises(InputError, match="a decoder alone"):
        alone.encode(image)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("attention", [True, False])
@torch.no_grad()
def test_vae(levels: int, attention: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = randomize(
        diffusers.AutoencoderKL(
            block_out_channels=(16, 32, 32)[:levels],
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=2,
            norm_num_groups=8,
            mid_block_add_attention=attention,
            scaling_factor=0.13025,
        )
    )
    ours = VAE(VAEConfig.from_dict(dict(theirs.config)))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.rand(2, 3, 24, 32) * 2 - 1
    reference, code = theirs.encode(image).latent_dist, ours.encode(image)
    assert relative(code.mean, reference.mean * 0.13025) <= 1e-5
    assert relative(code.std, reference.std * 0.13025) <= 1e-5
    latents = torch.randn(code.mean.shape)
    assert relative(ours.decode(latents), theirs.decode(latents / 0.13025).sample) <= 1e-5
    assert ours.config.factor == 2 ** (levels - 1)


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize(("act", "eos"), [("quick_gelu", 2), ("gelu", 99)])
@torch.no_grad()
def test_text_encoder(projection: bool, act: str, eos: int) -> None:
    transformers = pytest.importorskip("transformers")
    kind = "CLIPTextModelWithProjection" if projection else "CLIPTextModel"
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_act=act,
        bos_token_id=98,
        eos_token_id=eos,
        projection_dim=24,
    )
    theirs = randomize(getattr(transformers, kind)(config))
    raw = {**theirs.config.to_dict(), "architectures": [kind]}
    ours = TextEncoder(TextEncoderConfig.from_dict(raw))
    state = {
        k if k.startswith("text_") else f"text_model.{k}": v for k, v in theirs.state_dict().items()
    }
    ours.load_state_dict(state, strict=True)
    ids = torch.randint(3, 98, (2, 77))
    ids[0, 5:] = 99
    ids[1, 70:] = 99
    reference, encoding = theirs(ids, output_hidden_states=True), ours(ids)
    assert relative(encoding.last, reference.last_hidden_state) <= 1e-5
    pooled = reference.text_embeds if projection else reference.pooler_output
    assert relative(encoding.pooled, pooled) <= 1e-5
    assert len(encoding.hidden_states) == 4
    for a, b in zip(encoding.hidden_states, reference.hidden_states, strict=True):
        assert relative(a, b) <= 1e-5


@torch.no_grad()
def test_a_later_token_changes_nothing_before_it() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(TextEncoderConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
    a, b = torch.randint(0, 50, (2, 1, 12))
    b[:, :7] = a[:, :7]
    x, y = encoder(a).last, encoder(b).last
    assert torch.allclose(x[:, :7], y[:, :7], atol=1e-6)
    assert not torch.allclose(x[:, 7:], y[:, 7:], atol=1e-3)


@pytest.mark.parametrize(
    ("config", "raw", "said"),
    [
        (UNetConfig, {"act_fn": "mish"}, "act_fn is 'mish'"),
        (UNetConfig, {"down_block_types": ["AttnDownBlock2D"] * 4}, "AttnDownBlock2D"),
        (UNetConfig, {"attention_head_dim": [8, 8]}, "heads has 2 entries for the 4"),
        (UNetConfig, {"block_out_channels": [300, 640, 1280, 1280]}, "300 channels"),
        (UNetConfig, {"class_embed_type": "timestep"}, "class_embed_type"),
        (UNetConfig, {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "mid_block_type"),
        (UNetConfig, {"sample_size": [1, 2, 3]}, "sample_size"),
        (UNetConfig, {"transformer_layers_per_block": [1, [1, 1], 1, 1]}, "needs reverse_"),
        (UNetConfig, {"transformer_layers_per_block": [1, [1], 1, 1]}, "1 depths for a block of 2"),
        (TinyVAEConfig, {"act_fn": "silu"}, "act_fn is 'silu'"),
        (TinyVAEConfig, {"num_decoder_blocks": [1]}, "1 num_decoder_blocks for 4 levels"),
        (UNetConfig, [1, 2], "expected a JSON object"),
        (VAEConfig, {"block_out_channels": [10]}, "10 channels"),
        (VAEConfig, {"down_block_types": ["AttnDownEncoderBlock2D"]}, "AttnDownEncoderBlock2D"),
        (UNetConfig, {"norm_eps": "abc"}, "norm_eps cannot be 'abc'"),
        (UNetConfig, {"in_channels": 4.5}, "in_channels cannot be 4.5"),
        (UNetConfig, {"block_out_channels": []}, r"block_out_channels cannot be \[\]"),
        (UNetConfig, {"attention_head_dim": [8, -8, 8, 8]}, "attention_head_dim cannot be"),
        (UNetConfig, {"norm_num_groups": 0}, "into 0 groups"),
        (VAEConfig, {"scaling_factor": [1]}, r"scaling_factor cannot be \[1\]"),
        (VAEConfig, {"down_block_types": True}, "down_block_types True"),
        (TextEncoderConfig, {"num_attention_heads": 0}, "num_attention_heads 0"),
        (TextEncoderConfig, {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        (TextEncoderConfig, {"hidden_size": 10, "num_attention_heads": 3}, "hidden_size 10"),
    ],
)
def test_what_is_not_known_is_refused(config: type, raw: object, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        config.from_dict(raw)
    assert "\n" not in str(caught.value)


def test_null_means_the_default() -> None:
    raw = {"num_attention_heads": None, "attention_head_dim": 4, "upcast_attention": None}
    assert UNetConfig.from_dict(raw).heads == (4, 4, 4, 4)
    assert VAEConfig.from_dict({"scaling_factor": None}).scaling_factor == 0.18215
