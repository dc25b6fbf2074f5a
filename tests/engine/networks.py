"""Small random networks of every family's structure, and what they are told."""

import torch
from torch import Tensor, nn

from sdcore.models import VAE, UNet, UNetConfig, VAEConfig

CROSS, DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
UP_CROSS, UP = "CrossAttnUpBlock2D", "UpBlock2D"
SD1 = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
SD1 |= {"down_block_types": (CROSS, DOWN), "up_block_types": (UP, UP_CROSS)}
SD1 |= {"attention_head_dim": 4, "cross_attention_dim": 24, "sample_size": 8}
XL = {"block_out_channels": (32, 64, 64), "layers_per_block": 2, "norm_num_groups": 8}
XL |= {"down_block_types": (DOWN, CROSS, CROSS), "up_block_types": (UP_CROSS, UP_CROSS, UP)}
XL |= {"transformer_layers_per_block": (1, 1, 2), "attention_head_dim": (2, 4, 4)}
XL |= {"cross_attention_dim": 40, "use_linear_projection": True, "sample_size": 8}
XL |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
XL |= {"projection_class_embeddings_input_dim": 24 + 6 * 8}
UNETS = {
    "SD 1.x": SD1,
    "SD 2.x": {**SD1, "use_linear_projection": True, "upcast_attention": True},
    "SDXL": XL,
    "LCM": {**SD1, "time_cond_proj_dim": 16},
    "small": {**SD1, "mid_block_type": None, "layers_per_block": (1, 2)},
    "small middle": {**SD1, "mid_block_type": "UNetMidBlock2D"},
    "inpainting": {**SD1, "in_channels": 9},
}
DECODER = VAEConfig(block_out_channels=(16, 32, 32), layers_per_block=1, norm_num_groups=8)


def random(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with weights under which numbers keep their size, without gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        wide = parameter.dim() > 1
        parameter.data = noise / parameter[0].numel() ** 0.5 if wide else parameter + 0.1 * noise
    return network.eval().requires_grad_(False)


def unet(name: str, seed: int = 0) -> UNet:
    network = random(UNet(UNetConfig(**UNETS[name])), seed)
    assert isinstance(network, UNet)
    return network


def vae() -> VAE:
    network = random(VAE(DECODER))
    assert isinstance(network, VAE)
    return network


def told(network: UNet, rows: int, seed: int = 1, length: int = 7) -> dict[str, Tensor]:
    """What it is told beside x and t, [rows, ...]."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(rows, *shape, generator=generator)  # noqa: E731
    config = network.config
    what = {"context": draw(length, config.cross_attention_dim)}
    if config.addition_embed_type is not None:
        what |= {"text_embeds": draw(24), "time_ids": 100 * draw(6).abs()}
    if config.time_cond_proj_dim is not None:
        what["timestep_cond"] = draw(config.time_cond_proj_dim)
    if config.in_channels == 9:
        what["extra"] = draw(5, 9, 12)
    return what


def latents(rows: int, seed: int = 2) -> Tensor:
    """[rows, 4, 9, 12]: sides that no halving divides."""
    return torch.randn(rows, 4, 9, 12, generator=torch.Generator().manual_seed(seed))
