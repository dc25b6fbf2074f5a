"""Full-size networks of the published configurations, on the meta device: keys and parameters."""

import pytest
import torch

from sdcore.models import VAE, TextEncoder, TextEncoderConfig, UNet, UNetConfig, VAEConfig

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
SD1 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SD2 = {
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
SDXL = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": [PLAIN, CROSS, CROSS],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
REFINER = {
    **SDXL,
    "block_out_channels": [384, 768, 1536, 1536],
    "down_block_types": [PLAIN, CROSS, CROSS, PLAIN],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [6, 12, 24, 24],
    "transformer_layers_per_block": 4,
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 2560,
}


@pytest.mark.parametrize(
    ("raw", "keys", "parameters"),
    [
        (SD1, 686, 859_520_964),
        ({**SD1, "in_channels": 9}, 686, 859_535_364),
        (SD2, 686, 865_910_724),
        ({**SD2, "in_channels": 9}, 686, 865_925_124),
        (SDXL, 1680, 2_567_463_684),
        (REFINER, 1220, 2_259_526_660),
        ({**SD1, "time_cond_proj_dim": 256}, 687, 859_602_884),
    ],
    ids=["sd1", "sd1-inpaint", "sd2", "sd2-inpaint", "sdxl", "refiner", "lcm"],
)
def test_unet(raw: dict, keys: int, parameters: int) -> None:
    with torch.device("meta"):
        state = UNet(UNetConfig.from_dict(raw)).state_dict()
    assert len(state) == keys
    assert sum(p.numel() for p in state.values()) == parameters


def test_vae() -> None:
    raw = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
    with torch.device("meta"):
        vae = VAE(VAEConfig.from_dict(raw))
    assert len(vae.state_dict()) == 248
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert vae.config.factor == 8


@pytest.mark.parametrize(
    ("fields", "keys"),
    [((768, 3072, 12, 12, False), 196), ((1024, 4096, 23, 16, False), 372),
     ((1280, 5120, 32, 20, True), 517)],
    ids=["clip-l", "openclip-h", "openclip-bigg"],
)  # fmt: skip
def test_text_encoder(fields: tuple[int, int, int, int, bool], keys: int) -> None:
    width, inner, layers, heads, projection = fields
    raw = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": 1280,
        "architectures": ["CLIPTextModelWithProjection" if projection else "CLIPTextModel"],
    }
    with torch.device("meta"):
        encoder = TextEncoder(TextEncoderConfig.from_dict(raw))
    assert len(encoder.state_dict()) == keys
