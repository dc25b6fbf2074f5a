"""Published spellings of one and the same parameter, brought to the modules' own names.

Every rule is a pure function from a key to a key, or to None for what carries no weights.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Rename = Callable[[str], str | None]
Cut = Callable[[Tensor], Tensor]  # what of a stored tensor is a parameter
Spelling = Callable[[str], Mapping[str, Cut]]  # key in a file -> the parameters stored there

# diffusers before 0.13 spelt the VAE's one attention like this; the 1.x checkpoints still do.
_SIGHT = ("vision_model.", "visual_projection.")
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def whole(stored: Tensor) -> Tensor:
    """The parameter is stored as it is."""
    return stored


def spelt(rename: Rename) -> Spelling:
    """The spelling of a layout that stores every parameter by itself."""

    def spelling(key: str) -> Mapping[str, Cut]:
        name = rename(key)
        return {} if name is None else {name: whole}

    return spelling


def shape_after(cut: Cut, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a stored tensor has after `cut`; its own where it cannot be cut so."""
    if cut is whole:
        return shape
    try:
        return tuple(cut(torch.empty(shape, device="meta")).shape)
    except (IndexError, RuntimeError):
        return shape


def text_encoder_key(key: str) -> str | None:
    """CLIP: with or without the `text_model.` prefix; `position_ids` is a counter, no weight, and
    the half that sees pictures reads no prompt.

    >>> text_encoder_key("final_layer_norm.bias")
    'text_model.final_layer_norm.bias'
    """
    if key.endswith("embeddings.position_ids") or key.startswith(_SIGHT) or key == "logit_scale":
        return None
    return key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}"


def vae_key(key: str) -> str | None:
    """AutoencoderKL: old and new names of the attention in the middle. None for the asymmetric
    one's encoder of masks, which a picture from words does not ask.

    >>> vae_key("encoder.mid_block.attentions.0.proj_attn.weight")
    'encoder.mid_block.attentions.0.to_out.0.weight'
    """
    if key.startswith("decoder.condition_encoder."):
        return None
    head, _, tail = key.rpartition(".")
    stem, _, last = head.rpartition(".")
    if ".attentions." in key and last in OLD_ATTENTION:
        return f"{stem}.{OLD_ATTENTION[last]}.{tail}"
    return key


def unet_key(key: str) -> str:
    """UNet2DConditionModel: published keys are the modules' own."""
    return key


def tiny_vae_key(key: str) -> str:
    """AutoencoderTiny; the authors' own file of the decoder counts its first activation too.

    >>> tiny_vae_key("1.weight")
    'decoder.layers.0.weight'
    """
    number, _, rest = key.partition(".")
    return f"decoder.layers.{int(number) - 1}.{rest}" if number.isdecimal() else key
