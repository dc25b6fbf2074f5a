"""`--lora` and `--embedding`: what is laid over a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdcore.pipeline import StableDiffusion


def with_adapters(
    sd: StableDiffusion, loras: Sequence[str], embeddings: Sequence[str]
) -> StableDiffusion:
    """The model with the adapters of `--lora FILE[:STRENGTH]` and the words of
    `--embedding FILE[:WORD]`. Raises InputError."""
    from sdcore.adapters import joined, open_embedding, parse_embedding
    from sdcore.strengths import parse_lora

    for word in joined([open_embedding(*parse_embedding(spec)) for spec in embeddings]):
        sd = sd.with_embedding(word)
    for spec in loras:
        path, unet, text = parse_lora(spec)
        sd = sd.with_lora(path, unet=unet, text=text)
    # A command takes nothing away again: the weights without adapters need not be kept.
    return replace(sd, untouched={})
