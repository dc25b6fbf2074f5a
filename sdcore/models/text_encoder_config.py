"""A text encoder's config.json: transformers' CLIPTextConfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sdcore.models.config_fields import divides, pick, refuse_unknown, require

# Fields that name another network when they differ from these values (None is always harmless).
_TEXT_FIXED = {"hidden_act": ("quick_gelu", "gelu")}


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
        picked = pick(cls, "text encoder", raw)
        refuse_unknown("text encoder", raw, _TEXT_FIXED)
        names = raw.get("architectures") or []
        picked["with_projection"] = "CLIPTextModelWithProjection" in names
        config = cls(**picked)
        require(
            divides(config.num_attention_heads, config.hidden_size),
            f"text encoder config: hidden_size {config.hidden_size} is no multiple of "
            f"num_attention_heads {config.num_attention_heads}",
        )
        return config
