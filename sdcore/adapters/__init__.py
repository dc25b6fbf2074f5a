"""What is added to a model: LoRA and its kin, and learned words."""

from sdcore.adapters.apply import Adapted, adapted, merged, twin
from sdcore.adapters.embeddings import (
    Embedding,
    bundled_words,
    extended,
    joined,
    open_embedding,
    parse_embedding,
)
from sdcore.adapters.lora import LoRA, open_lora, unmatched_warning
from sdcore.adapters.networks import (
    unmatched_warnings,
    with_embedding,
    with_lora,
    without_loras,
)
from sdcore.adapters.write import LAYOUTS, write_lora

__all__ = [
    "LAYOUTS",
    "Adapted",
    "Embedding",
    "LoRA",
    "adapted",
    "bundled_words",
    "extended",
    "joined",
    "merged",
    "open_embedding",
    "open_lora",
    "parse_embedding",
    "twin",
    "unmatched_warning",
    "unmatched_warnings",
    "with_embedding",
    "with_lora",
    "without_loras",
    "write_lora",
]
