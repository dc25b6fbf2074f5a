"""What a file's header says of a tensor, and the number formats that it may be stored in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sdcore.checkpoints.blocks import BLOCKS

# The safetensors format's names.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
FLOATING = {name for name, dtype in DTYPES.items() if dtype.is_floating_point}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor, before any of its bytes are read."""

    dtype: str  # in safetensors' words: "F16", "F32", "BF16", "I64" ...; in ggml's: "Q4_0" ...
    shape: tuple[int, ...]
    begin: int = 0  # of its bytes in a safetensors or GGUF file
    scale: TensorInfo | None = None  # by which what is stored is multiplied; None: by nothing

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its own bytes, without its scale's."""
        block = BLOCKS.get(self.dtype)
        if block is not None:
            return self.count // block.size * block.nbytes
        return self.count * DTYPES[self.dtype].itemsize

    @property
    def packed(self) -> bool:
        """Whether its numbers must be worked out of what is stored."""
        return self.scale is not None or self.dtype in BLOCKS

    @property
    def floating(self) -> bool:
        return self.packed or self.dtype in FLOATING
