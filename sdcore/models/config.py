"""The published config.json fields, as frozen dataclasses.

Every field has diffusers' (or transformers') name and default, so that an old file, which leaves
fields out, means what it meant when it was written. Fields that change the network in a way that
no Stable Diffusion checkpoint uses are refused by name instead of being ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from sdcore.errors import InputError

# Fields that name another network when they differ from these values (None is always harmless).
_UNET_FIXED = {
    "act_fn": ("silu", "swish"),
    "class_embed_type": (),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (),
    "encoder_hid_dim_type": (),
    "mid_block_only_cross_attention": (False,),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_class_embeds": (),
    "only_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "reverse_transformer_layers_per_block": (),
    "time_embedding_act_fn": (),
    "time_embedding_dim": (),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (),
    "center_input_sample": (False,),
    "attention_type": ("default",),
    "addition_embed_type": ("text_time",),
}
_VAE_FIXED = {
    "act_fn": ("silu", "swish"),
    "shift_factor": (0, 0.0),
    "latents_mean": (),
    "latents_std": (),
}
_TEXT_FIXED = {"hidden_act": ("quick_gelu", "gelu")}


def _refuse_unknown(what: str, raw: Mapping[str, Any], allowed: Mapping[str, tuple]) -> None:
    for name, values in allowed.items():
        value = raw.get(name)
        if value is not None and value not in values:
            accepted = ", ".join(repr(v) for v in values) or "null"
            raise InputError(f"{what} config: {name} is {value!r}; this engine knows {accepted}")


def _pick(cls: type, what: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `cls` that `raw` names, lists as tuples; null means the default."""
    if not isinstance(raw, Mapping):
        raise InputError(f"{what} config: expected a JSON object, got {type(raw).__name__}")
    kinds = get_type_hints(cls)
    found = {k: v for k, v in raw.items() if k in kinds and v is not None}
    found = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    for name, value in found.items():
        _require(_fits(value, kinds[name]), f"{what} config: {name} cannot be {raw[name]!r}")
    return found


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type; numbers are finite, whole ones not below 0."""
    if isinstance(kind, UnionType):
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        each = get_args(kind)[0]
        return isinstance(value, tuple) and value != () and all(_fits(v, each) for v in value)
    if kind is int:
        return type(value) is int and value >= 0
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return isinstance(value, kind)


def _divides(part: int, whole: int) -> bool:
    return part > 0 and whole % part == 0


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


@dataclass(frozen=True)
class TextEncoderConfig:
    """A CLIP text encoder. Defaults: transformers' CLIPTextConfig."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407
    projection_dim: int = 512
    with_projection: bool = False  # CLIPTextModelWithProjection: pooled @ text_projection

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read a text encoder's config.json. Raises InputError for what this engine has not."""
        picked = _pick(cls, "text encoder", raw)
        _refuse_unknown("text encoder", raw, _TEXT_FIXED)
        names = raw.get("architectures") or []
        picked["with_projection"] = "CLIPTextModelWithProjection" in names
        config = cls(**picked)
        _require(
            _divides(config.num_attention_heads, config.hidden_size),
            f"text encoder config: hidden_size {config.hidden_size} is no multiple of "
            f"num_attention_heads {config.num_attention_heads}",
        )
        return config


@dataclass(frozen=True)
class UNetConfig:
    """UNet2DConditionModel. Defaults: diffusers' class defaults.

    `heads`, `depth` are per down block, highest resolution first; up blocks use them in reverse.
    """

    sample_size: int = 64
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    # The published name is historical: the value is the NUMBER OF HEADS of each block.
    attention_head_dim: int | tuple[int, ...] = 8
    num_attention_heads: int | tuple[int, ...] | None = None
    transformer_layers_per_block: int | tuple[int, ...] = 1
    cross_attention_dim: int = 1280
    use_linear_projection: bool = False
    upcast_attention: bool = False  # SD 2.1: q k^T is beyond what float16 can hold
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None
    time_cond_proj_dim: int | None = None

    @property
    def heads(self) -> tuple[int, ...]:
        heads = self.num_attention_heads
        return self._per_block(self.attention_head_dim if heads is None else heads)

    @property
    def depth(self) -> tuple[int, ...]:
        return self._per_block(self.transformer_layers_per_block)

    @property
    def added_dims(self) -> tuple[int, int]:
        """Of what SDXL is told beside the text: the whole vector's width, and each number's."""
        vector, each = self.projection_class_embeddings_input_dim, self.addition_time_embed_dim
        if vector is None or each is None:
            raise InputError(
                "UNet config: addition_embed_type 'text_time' needs addition_time_embed_dim and "
                "projection_class_embeddings_input_dim"
            )
        return vector, each

    def _per_block(self, value: int | tuple[int, ...]) -> tuple[int, ...]:
        return (value,) * len(self.block_out_channels) if isinstance(value, int) else value

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read a UNet's config.json. Raises InputError for what this engine has not."""
        picked = _pick(cls, "UNet", raw)
        _refuse_unknown("UNet", raw, _UNET_FIXED)
        config = cls(**picked)
        levels = len(config.block_out_channels)
        for name in ("down_block_types", "up_block_types", "heads", "depth"):
            _require(
                len(getattr(config, name)) == levels,
                f"UNet config: {name} has {len(getattr(config, name))} entries for the "
                f"{levels} of block_out_channels",
            )
        for name in config.down_block_types + config.up_block_types:
            _require(
                name in ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                f"UNet config: block type {name!r} is not one of Stable Diffusion's four "
                "(CrossAttnDownBlock2D, DownBlock2D, CrossAttnUpBlock2D, UpBlock2D)",
            )
        for channels, heads in zip(config.block_out_channels, config.heads, strict=True):
            _require(
                _divides(config.norm_num_groups, channels) and _divides(heads, channels),
                f"UNet config: {channels} channels do not divide into "
                f"{config.norm_num_groups} groups and {heads} heads",
            )
        return config


@dataclass(frozen=True)
class VAEConfig:
    """AutoencoderKL. Defaults: diffusers' class defaults (one level of 64 channels)."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    norm_num_groups: int = 32
    sample_size: int = 32
    scaling_factor: float = 0.18215
    force_upcast: bool = True
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True

    @property
    def factor(self) -> int:
        """How many pixels make one latent, per side: 8 for Stable Diffusion."""
        return 2 ** (len(self.block_out_channels) - 1)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read a VAE's config.json. Raises InputError for what this engine has not."""
        picked = _pick(cls, "VAE", raw)
        _refuse_unknown("VAE", raw, _VAE_FIXED)
        config = cls(**picked)
        for channels in config.block_out_channels:
            _require(
                _divides(config.norm_num_groups, channels),
                f"VAE config: {channels} channels do not divide into "
                f"{config.norm_num_groups} groups",
            )
        for key in ("down_block_types", "up_block_types"):
            kinds = raw.get(key)
            known = isinstance(kinds, list | tuple) and all(
                kind in ("DownEncoderBlock2D", "UpDecoderBlock2D") for kind in kinds
            )
            _require(
                kinds is None or known,
                f"VAE config: {key} {kinds!r} are not those of AutoencoderKL",
            )
        return config
