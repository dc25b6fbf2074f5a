"""What is added to a model: LoRA and its kin, and learned words.

`as_diffusers` is found here, too: it fits a solver to another tool's sockets (sdcore.interop).
"""

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
from sdcore.interop import as_diffusers

__all__ = [
    "LAYOUTS",
    "Adapted",
    "Embedding",
    "LoRA",
    "adapted",
    "as_diffusers",
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
