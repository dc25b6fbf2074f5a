"""A VAE's config.json: diffusers' AutoencoderKL, AsymmetricAutoencoderKL and AutoencoderTiny."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sdcore.models.config_fields import divides, pick, refuse_unknown, require

# Fields that name another network when they differ from these values (None is always harmless).
_VAE_FIXED = {
    "act_fn": ("silu", "swish"),
    "shift_factor": (0, 0.0),
    "latents_mean": (),
    "latents_std": (),
}
_TINY_FIXED = {
    "act_fn": ("relu",),
    "upsample_fn": ("nearest",),
    "upsampling_scaling_factor": (2,),
    "shift_factor": (0, 0.0),
}


@dataclass(frozen=True)
class VAEConfig:
    """AutoencoderKL, AsymmetricAutoencoderKL. Defaults: diffusers' (one level of 64 channels)."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    up_block_out_channels: tuple[int, ...] | None = None  # of the decoder, where it has its own
    layers_per_up_block: int | None = None
    norm_num_groups: int = 32
    sample_size: int | tuple[int, ...] = 32
    scaling_factor: float = 0.18215
    force_upcast: bool = True
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True

    @property
    def factor(self) -> int:
        """How many pixels make one latent, per side: 8 for Stable Diffusion."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def decoder(self) -> tuple[tuple[int, ...], int]:
        """The decoder's channels by level, highest resolution first, and its layers per block."""
        widths, layers = self.up_block_out_channels, self.layers_per_up_block
        return (
            self.block_out_channels if widths is None else widths,
            self.layers_per_block if layers is None else layers,
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read a VAE's config.json. Raises InputError for what this engine has not."""
        if isinstance(raw, Mapping) and "down_block_out_channels" in raw:
            # The asymmetric one: its block_out_channels are the decoder's again.
            renamed = {"block_out_channels": raw["down_block_out_channels"]}
            raw = {**raw, **renamed, "layers_per_block": raw.get("layers_per_down_block")}
            raw = {"layers_per_up_block": 1, "up_block_out_channels": (64,), **raw}
        picked = pick(cls, "VAE", raw)
        refuse_unknown("VAE", raw, _VAE_FIXED)
        config = cls(**picked)
        widths, _ = config.decoder
        require(
            len(widths) == len(config.block_out_channels),
            f"VAE config: it halves a picture {len(config.block_out_channels) - 1} times and "
            f"doubles latents {len(widths) - 1} times",
        )
        for channels in config.block_out_channels + widths:
            require(
                divides(config.norm_num_groups, channels),
                f"VAE config: {channels} channels do not divide into "
                f"{config.norm_num_groups} groups",
            )
        for key in ("down_block_types", "up_block_types"):
            kinds = raw.get(key)
            known = isinstance(kinds, list | tuple) and all(
                kind in ("DownEncoderBlock2D", "UpDecoderBlock2D") for kind in kinds
            )
            require(
                kinds is None or known,
                f"VAE config: {key} {kinds!r} are not those of AutoencoderKL",
            )
        return config


TINY = "AutoencoderTiny"  # how diffusers names it in a config's "_class_name"


@dataclass(frozen=True)
class TinyVAEConfig:
    """AutoencoderTiny. Defaults: diffusers', which are TAESD's."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    encoder_block_out_channels: tuple[int, ...] = (64,) * 4
    decoder_block_out_channels: tuple[int, ...] = (64,) * 4
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    scaling_factor: float = 1.0
    force_upcast: bool = False
    decoder_only: bool = False  # not diffusers': a file without the encoder

    @property
    def factor(self) -> int:
        """How many pixels make one latent, per side."""
        return 2 ** (len(self.decoder_block_out_channels) - 1)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read its config.json. Raises InputError for what this engine has not."""
        picked = pick(cls, "tiny VAE", raw)
        refuse_unknown("tiny VAE", raw, _TINY_FIXED)
        config = cls(**picked)
        for side in ("encoder", "decoder"):
            widths = getattr(config, f"{side}_block_out_channels")
            blocks = getattr(config, f"num_{side}_blocks")
            require(
                len(widths) == len(blocks),
                f"tiny VAE config: {len(blocks)} num_{side}_blocks for {len(widths)} levels",
            )
            require(
                all(width == widths[0] for width in widths),
                f"tiny VAE config: {side}_block_out_channels {list(widths)} are not all alike",
            )
        require(
            len(config.encoder_block_out_channels) == len(config.decoder_block_out_channels),
            "tiny VAE config: encoder and decoder are not of the same resolutions",
        )
        return config
