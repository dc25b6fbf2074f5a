"""A UNet's config.json: diffusers' UNet2DConditionModel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from sdcore.errors import InputError
from sdcore.models.config_fields import divides, pick, refuse_unknown, require
from sdcore.models.unet_inputs import UNetInputs, unet_inputs

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
    "num_class_embeds": (),
    "only_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_act_fn": (),
    "time_embedding_dim": (),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (),
    "center_input_sample": (False,),
    "attention_type": ("default",),
    "addition_embed_type": ("text_time",),
}
CROSS_MIDDLE, PLAIN_MIDDLE = "UNetMidBlock2DCrossAttn", "UNetMidBlock2D"
_DEPTHS = "transformer_layers_per_block"


@dataclass(frozen=True)
class UNetConfig:
    """UNet2DConditionModel. Defaults: diffusers' class defaults.

    `heads`, `layers`, `down_depths` are per down block, highest resolution first; up blocks use
    heads and layers in reverse. Distilled UNets have depths of their own on the way up, and a
    middle of one residual block or none (Gupta et al. 2024, arXiv 2401.02677; Kim et al. 2023,
    arXiv 2305.15798).
    """

    sample_size: int | tuple[int, ...] = 64  # of the latents in training, [height, width] where two
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    mid_block_type: str | None = CROSS_MIDDLE
    # The published name is historical: the value is the NUMBER OF HEADS of each block.
    attention_head_dim: int | tuple[int, ...] = 8
    num_attention_heads: int | tuple[int, ...] | None = None
    transformer_layers_per_block: int | tuple[int | tuple[int, ...], ...] = 1
    reverse_transformer_layers_per_block: tuple[int | tuple[int, ...], ...] | None = None
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
        """Attention heads of every down block."""
        heads = self.num_attention_heads
        return self._per_block(self.attention_head_dim if heads is None else heads)

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual blocks of every down block; the up blocks have one more."""
        return self._per_block(self.layers_per_block)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the latents in training."""
        size = self.sample_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def down_depths(self) -> tuple[tuple[int, ...], ...]:
        """Transformer layers of every attention on the way down, block by block."""
        depths = self.transformer_layers_per_block
        blocks = self._per_block(depths) if isinstance(depths, int) else depths
        return self._per_layer("transformer_layers_per_block", blocks, self.layers)

    @property
    def up_depths(self) -> tuple[tuple[int, ...], ...]:
        """The same on the way up, in its order: the lowest resolution first."""
        blocks, name = self.reverse_transformer_layers_per_block, "reverse_" + _DEPTHS
        if blocks is None:
            name, depths = _DEPTHS, self.transformer_layers_per_block
            blocks = self._per_block(depths) if isinstance(depths, int) else depths[::-1]
            if any(isinstance(block, tuple) for block in blocks):
                raise InputError(f"UNet config: {_DEPTHS} of lists needs reverse_{_DEPTHS} beside")
        return self._per_layer(name, blocks, tuple(n + 1 for n in reversed(self.layers)))

    @property
    def mid_depth(self) -> int | None:
        """Transformer layers of the middle; None where it has no transformer."""
        if self.mid_block_type != CROSS_MIDDLE:
            return None
        depths = self.transformer_layers_per_block
        last = depths if isinstance(depths, int) else depths[-1]
        if isinstance(last, tuple):
            raise InputError(f"UNet config: {_DEPTHS} gives the middle {len(last)} depths, not one")
        return last

    @property
    def inputs(self) -> UNetInputs:
        """What it is told beside x, t and the text."""
        return unet_inputs(vars(self))

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

    def _per_layer(
        self, name: str, blocks: tuple[int | tuple[int, ...], ...], layers: tuple[int, ...]
    ) -> tuple[tuple[int, ...], ...]:
        """A number for every layer of every block, of which a block has one or a list."""
        require(len(blocks) == len(layers), _wrong_count(name, len(blocks), len(layers)))
        each = tuple(
            (b,) * n if isinstance(b, int) else b for b, n in zip(blocks, layers, strict=True)
        )
        for depths, count in zip(each, layers, strict=True):
            require(
                len(depths) == count,
                f"UNet config: {name} has {len(depths)} depths for a block of {count} layers",
            )
        return each

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read a UNet's config.json. Raises InputError for what this engine has not."""
        picked = pick(cls, "UNet", raw)
        refuse_unknown("UNet", raw, _UNET_FIXED)
        config = cls(**picked)
        levels = len(config.block_out_channels)
        for name in ("down_block_types", "up_block_types", "heads", "layers"):
            count = len(getattr(config, name))
            require(count == levels, _wrong_count(name, count, levels))
        if "mid_block_type" in raw and raw["mid_block_type"] is None:
            config = replace(config, mid_block_type=None)  # null: it has no middle
        require(
            config.mid_block_type in (CROSS_MIDDLE, PLAIN_MIDDLE, None),
            f"UNet config: mid_block_type is {config.mid_block_type!r}; this engine knows "
            f"{CROSS_MIDDLE!r}, {PLAIN_MIDDLE!r} and null",
        )
        require(
            isinstance(config.sample_size, int) or len(config.sample_size) == 2,
            f"UNet config: sample_size {raw.get('sample_size')!r} is neither a side nor two",
        )
        _ = config.down_depths, config.up_depths, config.mid_depth  # each raises where it is wrong
        for name in config.down_block_types + config.up_block_types:
            require(
                name in ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                f"UNet config: block type {name!r} is not one of Stable Diffusion's four "
                "(CrossAttnDownBlock2D, DownBlock2D, CrossAttnUpBlock2D, UpBlock2D)",
            )
        for channels, heads in zip(config.block_out_channels, config.heads, strict=True):
            require(
                divides(config.norm_num_groups, channels) and divides(heads, channels),
                f"UNet config: {channels} channels do not divide into "
                f"{config.norm_num_groups} groups and {heads} heads",
            )
        return config


def _wrong_count(name: str, count: int, levels: int) -> str:
    return f"UNet config: {name} has {count} entries for the {levels} of block_out_channels"
