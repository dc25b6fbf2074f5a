"""The three networks: text encoder, UNet, VAE. Parameter names are the published keys."""

from sdcore.models.config import TextEncoderConfig, TinyVAEConfig, UNetConfig, VAEConfig
from sdcore.models.text_encoder import TextEncoder, TextEncoding
from sdcore.models.tiny_vae import TinyVAE
from sdcore.models.unet import UNet
from sdcore.models.vae import VAE, DiagonalGaussian

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
