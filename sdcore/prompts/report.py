"""What is told of a prompt that was not read as a user might think."""

from __future__ import annotations

from sdcore.prompts.chunks import chunked
from sdcore.prompts.grammar import (
    adapter_warning,
    at_step,
    looks_weighted,
    switches,
    unclosed,
)
from sdcore.prompts.tokens import Tokenizer, Tokens


def report(prompt: str, tokenizer: Tokenizer, grammar: str, steps: int) -> tuple[str, ...]:
    """The lines to tell: what was cut, how many chunks there are, brackets that were read as words.

    Raises InputError for what the grammar does not read.
    """
    if grammar == "plain":
        lines = [cut_warning(prompt, tokenizer(prompt), tokenizer.length), adapter_warning(prompt)]
        if looks_weighted(prompt):
            lines.append(
                f"the brackets in {_shortened(prompt)!r} are read as typed; "
                "--grammar a1111 reads them as weights"
            )
        return tuple(filter(None, lines))
    texts = {at_step(prompt, step, steps) for step in (0, *switches(prompt, steps))}
    chunks = max(len(chunked(text, tokenizer, grammar)) for text in texts)
    lines = []
    if unclosed(prompt):
        lines.append(
            f"a bracket of the prompt {_shortened(prompt)!r} is never closed: it reaches to the "
            "end; write \\( or \\[ for the sign itself"
        )
    if chunks > 1:
        lines.append(
            f"the prompt {_shortened(prompt)!r} is read in {chunks} chunks of at most "
            f"{tokenizer.length - 2} tokens, each by itself"
        )
    return tuple(lines)


def cut_warning(prompt: str, tokens: Tokens, length: int) -> str | None:
    """The line that tells a user what a cut prompt lost; None when nothing was cut."""
    if not tokens.cut:
        return None
    room = length - 2
    return (
        f"the prompt {_shortened(prompt)!r} has {tokens.count} tokens and the text encoder reads "
        f"{room}; this was cut: {tokens.cut!r}"
    )


def _shortened(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
