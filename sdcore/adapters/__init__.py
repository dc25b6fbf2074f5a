"""What is added to a model: LoRA and its kin."""

from sdcore.adapters.apply import Adapted, adapted, twin
from sdcore.adapters.lora import LoRA, open_lora, parse_lora, unmatched_warning

__all__ = ["Adapted", "LoRA", "adapted", "open_lora", "parse_lora", "twin", "unmatched_warning"]
