"""The header of a GGUF file, as ggml and those who use it write it: read, and believed in nothing.

    magic, version, number of tensors, number of notes
    the notes       a name, a type, a value each
    the tensors     a name, its lengths (the last axis first), a type, a place each
    the data        from the next multiple of the alignment on

Every length is held against what is left of the file before anything is made of it, and every
tensor against the file's size and its neighbours.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sdcore.checkpoints.blocks import BLOCKS
from sdcore.checkpoints.tensor_info import TensorInfo
from sdcore.errors import InputError, listed

MAGIC = b"GGUF"
MAX_BYTES = 100_000_000  # of a header, as of a safetensors one
MAX_AXES = 4  # ggml's own limit
SHAPE = "comfy.gguf.orig_shape."  # ComfyUI-GGUF's note of a tensor's true shape
TYPES = {
    0: "F32",
    1: "F16",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    30: "BF16",
    **{block.number: block.name for block in BLOCKS.values()},
}
# The types that ggml has besides, so that a refusal can name them.
OTHERS = {9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S"}
OTHERS |= {20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0"}
OTHERS |= {35: "TQ2_0", 39: "MXFP4", 40: "NVFP4"}
_STRING, _ARRAY = 8, 9
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class GGUFHeader:
    """What a file says of itself and of its tensors."""

    notes: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]


def is_gguf(path: Path) -> bool:
    """Whether a file begins as one; False also where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


def read_gguf_header(path: Path) -> GGUFHeader:
    """Raises InputError for a file that is truncated or garbled, or holds a type that is not read.

    Reads no weights.
    """
    with path.open("rb") as file:
        bytes_ = _Bytes(path, file)
        tensors, notes = _begin(path, bytes_)
        header = _notes(path, bytes_, notes)
        infos = [_tensor(path, bytes_) for _ in range(tensors)]
    alignment = header.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise InputError(f"{path} is garbled: its alignment is {alignment!r:.80}")
    data = math.ceil(bytes_.at / alignment) * alignment
    found: dict[str, TensorInfo] = {}
    for name, info in infos:
        if name in found:
            raise InputError(f"{path} is garbled: it holds {name} twice")
        found[name] = TensorInfo(info.dtype, info.shape, data + info.begin)
    _check_places(path, found, data, alignment, bytes_.size)
    shaped = {name: _shaped(path, name, info, header) for name, info in found.items()}
    return GGUFHeader(header, shaped)


def _begin(path: Path, bytes_: _Bytes) -> tuple[int, int]:
    """How many tensors and how many notes follow."""
    if bytes_.take(4) != MAGIC:
        raise InputError(f"{path} is no GGUF file")
    version = bytes_.number("I")
    if version not in (2, 3):
        turned = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
        which = "written on a big-endian machine" if turned else f"of version {version}"
        raise InputError(f"{path} is GGUF {which}: versions 2 and 3, little-endian, are read")
    tensors, notes = bytes_.number("Q"), bytes_.number("Q")
    # A tensor takes 24 bytes at least, a note 13.
    bytes_.check(24 * tensors + 13 * notes)
    return tensors, notes


def _notes(path: Path, bytes_: _Bytes, count: int) -> dict[str, Any]:
    notes: dict[str, Any] = {}
    for _ in range(count):
        name = bytes_.text()
        if name in notes:
            raise InputError(f"{path} is garbled: it says {name} twice")
        notes[name] = _value(path, bytes_, bytes_.number("I"))
    return notes


def _value(path: Path, bytes_: _Bytes, kind: int) -> Any:
    if kind == _STRING:
        return bytes_.text()
    if kind == _ARRAY:
        kind, count = bytes_.number("I"), bytes_.number("Q")
        if kind in _NUMBERS:
            form = _NUMBERS[kind]
            size = count * struct.calcsize(f"<{form}")
            return list(struct.unpack(f"<{count}{form}", bytes_.take(size)))
        if kind == _STRING:
            bytes_.check(8 * count)
            return [bytes_.text() for _ in range(count)]
    if kind in _NUMBERS:
        return bytes_.number(_NUMBERS[kind])
    raise InputError(f"{path} is garbled: it has a note of the unknown type {kind}")


def _tensor(path: Path, bytes_: _Bytes) -> tuple[str, TensorInfo]:
    """A tensor, its place counted from where the data begin."""
    name, axes = bytes_.text(), bytes_.number("I")
    if axes > MAX_AXES:
        raise InputError(f"{path} is garbled: {name} has {axes} axes")
    lengths = [bytes_.number("Q") for _ in range(axes)]
    kind, begin = bytes_.number("I"), bytes_.number("Q")
    if kind not in TYPES:
        what = OTHERS.get(kind, f"type {kind}")
        raise InputError(f"{path} holds {name} as {what}; read are {', '.join(TYPES.values())}")
    block = BLOCKS.get(TYPES[kind])
    broken = block is not None and (lengths[0] if lengths else 1) % block.size
    if broken or not all(0 < length < 1 << 31 for length in lengths):
        raise InputError(f"{path} is garbled: {name} is {lengths[::-1]} of {TYPES[kind]}")
    return name, TensorInfo(TYPES[kind], tuple(lengths[::-1]), begin)


def _check_places(
    path: Path, infos: Mapping[str, TensorInfo], data: int, alignment: int, size: int
) -> None:
    """Raises InputError unless the tensors lie one after another, each at the next aligned place.

    The format demands it: of two that overlap one holds the other's numbers.
    """
    end, last = data, "the header"
    for key, info in sorted(infos.items(), key=lambda item: (item[1].begin, item[1].nbytes)):
        due = math.ceil(end / alignment) * alignment
        if info.begin != due:
            how = "overlaps" if info.begin < end else "does not follow on"
            raise InputError(f"{path} is garbled: {key} {how} {last}")
        end, last = info.begin + info.nbytes, key
    if size < end and infos:
        raise InputError(f"{path} is truncated: it should have {end} bytes and has {size}")


def _shaped(path: Path, name: str, info: TensorInfo, notes: Mapping[str, Any]) -> TensorInfo:
    """With its true shape, where the file notes one beside that of its rows of blocks."""
    shape = notes.get(f"{SHAPE}{name}")
    if shape is None:
        return info
    whole = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
    if not whole or math.prod(shape) != info.count:
        raise InputError(
            f"{path} is garbled: it says that {name} is {shape!r:.80}, and holds "
            f"{listed('numbers', [str(info.count)])}"
        )
    return TensorInfo(info.dtype, tuple(shape), info.begin)


class _Bytes:
    """A file's bytes from its beginning, with what is left of them in view."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file, self.at = path, file, 0
        self.size = os.fstat(file.fileno()).st_size

    def check(self, count: int) -> None:
        """Raises InputError where so many bytes do not follow."""
        if count > self.size - self.at:
            raise InputError(
                f"{self.path} is truncated or garbled: its header asks for {count} bytes at "
                f"{self.at}, and the file has {self.size}"
            )
        if self.at + count > MAX_BYTES:
            raise InputError(f"{self.path} is garbled: its header has over {MAX_BYTES} bytes")

    def take(self, count: int) -> bytes:
        self.check(count)
        self.at += count
        return self.file.read(count)

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self) -> str:
        raw = self.take(self.number("Q"))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise InputError(f"{self.path} is garbled: a name in it is no text") from None
