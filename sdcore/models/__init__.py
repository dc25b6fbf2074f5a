"""The three networks: text encoder, UNet, VAE. Parameter names are the published keys."""

from sdcore.models.text_encoder import TextEncoder, TextEncoding
from sdcore.models.text_encoder_config import TextEncoderConfig
from sdcore.models.tiny_vae import TinyVAE
from sdcore.models.unet import UNet
from sdcore.models.unet_config import UNetConfig
from sdcore.models.vae import VAE, DiagonalGaussian
from sdcore.models.vae_config import TinyVAEConfig, VAEConfig

__all__ = [
    "VAE",
    "DiagonalGaussian",
    "TextEncoder",
    "TextEncoderConfig",
    "TextEncoding",
    "TinyVAE",
    "TinyVAEConfig",
    "UNet",
    "UNetConfig",
    "VAEConfig",
]
