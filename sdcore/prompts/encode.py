"""Chunks to what the UNet is told: clip skip, and the weights of the words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdcore.devices import check_finite
from sdcore.errors import InputError
from sdcore.models import TextEncoder
from sdcore.models.layers import placement
from sdcore.models.text_encoder import TextEncoding
from sdcore.prompts.chunks import Chunk


def encode(
    chunks: Sequence[Chunk], encoder: TextEncoder, clip_skip: int = 1, before_last: bool = False
) -> tuple[Tensor, Tensor]:
    """The chunks of one prompt, each read by itself, then side by side.

    Args:
        clip_skip, before_last: as `layer` takes them.

    Returns:
        context [1, L * chunks, D], and the first chunk's pooled embedding [1, P] (its words
        unweighted, as in A1111).

    Raises InputError for a clip skip out of range, and for weights that leave nothing.
    """
    device, _ = placement(encoder)
    contexts, pooled = [], []
    for chunk in chunks:
        encoding = encoder(torch.tensor([chunk.ids], device=device))
        check_finite(encoding.last, "the text encoder", encoding.last.dtype)
        hidden = layer(encoding, encoder, clip_skip, before_last)
        contexts.append(hidden if chunk.plain else emphasise(hidden, chunk.weights))
        pooled.append(encoding.pooled)
    return (contexts[0] if len(contexts) == 1 else torch.cat(contexts, dim=1)), pooled[0]


def layer(
    encoding: TextEncoding, encoder: TextEncoder, clip_skip: int = 1, before_last: bool = False
) -> Tensor:
    """The output [B, L, D] of the layer that the UNet is told.

    Args:
        clip_skip: in A1111's numbers: 1 is the layer that the model was trained with, 2 the one
            before it (diffusers' clip_skip=1), and so on.
        before_last: SDXL, trained with the layer before the last and without the final LayerNorm;
            SD 1.x and 2.x take the last one, and the norm after whichever it is.

    Raises InputError for a layer that is not there.
    """
    states = encoding.hidden_states  # the embeddings, then the output of every layer
    most = len(states) - (2 if before_last else 1)
    if not 1 <= clip_skip <= most:
        raise InputError(f"clip_skip {clip_skip} is out of range: 1 (as trained) to {most}")
    if before_last:
        return states[-1 - clip_skip]
    if clip_skip == 1:
        return encoding.last
    return encoder.text_model.final_layer_norm(states[-clip_skip])


def emphasise(hidden: Tensor, weights: Sequence[float]) -> Tensor:
    """Each token's vector times its weight, then all scaled so that the mean stays what it was.

    z'_i = w_i z_i * mean(z) / mean(w z), the means over all tokens and channels of the chunk:
    A1111's "original" emphasis, for one picture. Computed in float32.

    Args:
        hidden: z [1, L, D].
        weights: w, L of them.

    Raises InputError where the weighted mean is zero or not finite.
    """
    z = hidden.float()
    weighted = z * torch.tensor(weights, device=z.device)[None, :, None]
    scale = z.mean() / weighted.mean()
    if not scale.isfinite():
        raise InputError("the weights of the prompt leave nothing of it: their mean is zero")
    return (weighted * scale).to(hidden.dtype)
