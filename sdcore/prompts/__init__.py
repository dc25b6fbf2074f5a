"""From text to what a text encoder reads: tokens, weights, chunks, and what changes midway."""

from sdcore.prompts.chunks import Chunk, chunked
from sdcore.prompts.encode import emphasise, encode
from sdcore.prompts.grammar import (
    GRAMMARS,
    Part,
    at_step,
    check_grammar,
    compose,
    prompt_parts,
    switches,
    weigh,
)
from sdcore.prompts.report import cut_warning, report
from sdcore.prompts.tokens import Tokenizer, Tokens, Unit, load_tokenizer

__all__ = [
    "GRAMMARS",
    "Chunk",
    "Part",
    "Tokenizer",
    "Tokens",
    "Unit",
    "at_step",
    "check_grammar",
    "chunked",
    "compose",
    "cut_warning",
    "emphasise",
    "encode",
    "load_tokenizer",
    "prompt_parts",
    "report",
    "switches",
    "weigh",
]
