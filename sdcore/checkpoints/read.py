"""Reading safetensors files: the header is checked first, the tensors are mapped, not copied."""

import json
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sdcore.errors import InputError

# The format's own limit on its header (safetensors refuses more).
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor, before any of its bytes are read."""

    dtype: str  # as written: "F16", "F32", "BF16", "I64" ...
    shape: tuple[int, ...]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError when it is missing, unreadable or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} should hold a JSON object, and holds {type(value).__name__}")
    return value


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Names, dtypes and shapes in a safetensors file, with the file's size held against them.

    Raises InputError when the file is missing, truncated or garbled. Reads the header only.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > MAX_HEADER_BYTES:
                raise InputError(f"{path} is no safetensors file (its first bytes are no header)")
            if size < 8 + length:
                raise InputError(
                    f"{path} is truncated: the header alone takes {8 + length} bytes, "
                    f"the file has {size}"
                )
            raw = file.read(length)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        infos = {k: TensorInfo(v["dtype"], tuple(v["shape"])) for k, v in header.items()}
        end = 8 + length + max((v["data_offsets"][1] for v in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise InputError(f"{path} is garbled: its safetensors header makes no sense") from None
    if size < end:
        raise InputError(f"{path} is truncated: it should have {end} bytes and has {size}")
    return infos


class Weights:
    """The tensors of one component, read from one or several safetensors files on demand.

    `names()` and `info` cost nothing beyond the headers; `read` yields (key, tensor) with each
    tensor mapped from the file, so that what is not asked for is never read. Iterating reads all.
    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        """Checks every header. Raises InputError for files that are missing or broken."""
        self.files = files
        self.info: dict[str, TensorInfo] = {}
        for path in files:
            self.info.update(read_header(path))

    def names(self) -> list[str]:
        return list(self.info)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return self.read(self.info)

    def read(self, keys: Container[str]) -> Iterator[tuple[str, Tensor]]:
        """Those of the tensors whose key is in `keys`, in the order of the files."""
        for path in self.files:
            try:
                with safe_open(path, framework="pt", device="cpu") as file:
                    for key in filter(keys.__contains__, file.keys()):
                        yield key, file.get_tensor(key)
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path} is garbled: {error}") from None


def as_dtype(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """`tensor` in `dtype` when both are floating; integer tensors are never cast."""
    if dtype is None or not tensor.is_floating_point():
        return tensor
    return tensor.to(dtype)


def aligned(tensor: Tensor) -> Tensor:
    """`tensor`, copied where it does not begin on a 64-byte boundary, as torch's own all do.

    A mapped tensor begins wherever the file has it, and on a CPU that decides which kernel reads
    it: the same weights from another file would draw a picture with other last bits.
    """
    return tensor.clone() if tensor.data_ptr() % 64 else tensor
