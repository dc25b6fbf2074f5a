"""GGUF files written by hand, right or wrong."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def note(name: str, value: Any) -> bytes:
    """A note: a text, a number, or a list of numbers (int32)."""
    if isinstance(value, str):
        return text(name) + struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        body = struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
        return text(name) + body
    return text(name) + struct.pack("<II", 4, value)


def entry(name: str, shape: Sequence[int], kind: int, begin: int) -> bytes:
    lengths = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
    return text(name) + lengths + struct.pack("<IQ", kind, begin)


def gguf(
    tensors: Sequence[tuple[str, Sequence[int], int, bytes]],
    notes: Mapping[str, Any] | None = None,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A file of (name, shape, type, bytes) one after another."""
    notes = {} if notes is None else notes
    entries, data = b"", b""
    for name, shape, kind, raw in tensors:
        data += bytes(-len(data) % alignment)
        entries += entry(name, shape, kind, len(data))
        data += raw
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(notes))
    head += b"".join(note(*each) for each in notes.items()) + entries
    return head + bytes(math.ceil(len(head) / alignment) * alignment - len(head)) + data
