"""Prompts of any length: cut into chunks, each read by the text encoder by itself, side by side.

A chunk is start, at most 75 tokens, end, padding; every token has a weight, 1 outside the words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sdcore.prompts.grammar import Part, weigh
from sdcore.prompts.tokens import Tokenizer

BACKTRACK = 20  # tokens: a chunk that is full ends at its last comma where that is so near


@dataclass(frozen=True)
class Chunk:
    """What the text encoder reads at once; both of the encoder's length (77)."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def plain(self) -> bool:
        """Whether no token weighs more or less than another."""
        return all(weight == 1 for weight in self.weights)


def chunked(text: str, tokenizer: Tokenizer, grammar: str) -> tuple[Chunk, ...]:
    """The chunks of a prompt: in plain grammar one, cut where it is full; else as many as it needs.

    Raises InputError for what the grammar does not read.
    """
    if grammar == "plain":
        ids = tokenizer(text).ids
        return (Chunk(ids, (1.0,) * len(ids)),)
    room = tokenizer.length - 2
    rows = list(_rows(weigh(text), tokenizer, room))
    return tuple(_chunk(row, tokenizer) for row in rows or [[]])


_Weighed = tuple[int, float]  # a token and its weight


def _rows(parts: Sequence[Part], tokenizer: Tokenizer, room: int) -> Iterator[list[_Weighed]]:
    """The tokens of each chunk with their weights."""
    comma = tokenizer.backend.token_to_id(",</w>")
    row: list[_Weighed] = []
    for part in parts:
        if part.text is None:
            yield row
            row = []
            continue
        for unit in tokenizer.units(part.text):
            while len(row) + len(unit.ids) > room:
                near = len(row) == room and unit.ids != (comma,)
                end = _last_comma(row, comma) if near else len(row)
                yield row[:end]
                row = row[end:]
            row += [(i, part.weight) for i in unit.ids]
    if row:
        yield row


def _last_comma(row: Sequence[_Weighed], comma: int | None) -> int:
    """Where a full row ends: behind its last comma if that is near the end, else at the end."""
    for end in range(len(row), max(0, len(row) - BACKTRACK), -1):
        if row[end - 1][0] == comma:
            return end
    return len(row)


def _chunk(row: Sequence[_Weighed], tokenizer: Tokenizer) -> Chunk:
    ids = tokenizer.framed([i for i, _ in row])
    weights = [1.0, *(weight for _, weight in row)]
    return Chunk(ids, tuple(weights + [1.0] * (len(ids) - len(weights))))
