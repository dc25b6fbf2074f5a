"""Reading files of weights: the header is checked first, the tensors are mapped, not copied."""

import mmap
import os
from collections.abc import Container, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from sdcore.checkpoints.blocks import BLOCKS
from sdcore.checkpoints.gguf_header import is_gguf, read_gguf_header
from sdcore.checkpoints.packed import Blocks, Packed, Scaled
from sdcore.checkpoints.pickled import is_pickled, read_pickled
from sdcore.checkpoints.scales import join_scales
from sdcore.checkpoints.tensor_info import DTYPE_NAMES, DTYPES, TensorInfo
from sdcore.checkpoints.upload import Upload
from sdcore.errors import InputError
from sdcore.strict_json import parse

# The format's own limit on its header (safetensors refuses more).
MAX_HEADER_BYTES = 100_000_000
METADATA = "__metadata__"  # the one entry of a header that is no tensor
# In which quantized weights are written where no other number format is asked for.
UNPACKED = torch.float16


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError when it is missing, unreadable or no object.

    It is read as `sdcore.strict_json` reads, and is no larger than a safetensors header may be.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_HEADER_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > MAX_HEADER_BYTES:
        raise InputError(f"{path} cannot be read as JSON: it has over {MAX_HEADER_BYTES} bytes")
    try:
        value = parse(raw)
    except InputError as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} should hold a JSON object, and holds {type(value).__name__}")
    return value


def read_header(path: Path) -> Mapping[str, TensorInfo]:
    """Names, dtypes and shapes in a file of weights, with the file's size held against them.

    Raises InputError when the file is missing, truncated or garbled. Reads no weights. A file is
    read once, as long as it is not changed: loading asks four times, for 20 ms each.
    """
    try:
        stat = path.stat()
    except OSError:
        return _read_header(path)
    return _known_header(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=32)
def _known_header(path: Path, changed: int, size: int) -> Mapping[str, TensorInfo]:
    """The header of the file as it was then: a changed one is another entry."""
    return MappingProxyType(_read_header(path))


def _read_header(path: Path) -> dict[str, TensorInfo]:
    if is_pickled(path):
        tensors = read_pickled(path, "meta")
        return {
            k: TensorInfo(DTYPE_NAMES.get(t.dtype, "?"), tuple(t.shape)) for k, t in tensors.items()
        }
    if is_gguf(path):
        return dict(read_gguf_header(path).tensors)
    header, data, size = _json_header(path)
    infos = {k: _info(path, k, entry, data) for k, entry in header.items() if k != METADATA}
    _check_places(path, infos, data, size)
    return join_scales(path, infos)


def _check_places(path: Path, infos: Mapping[str, TensorInfo], data: int, size: int) -> None:
    """Raises InputError unless the tensors fill the file behind its header, one after another.

    The format demands it: of two that overlap one holds the other's numbers, and in a hole or
    behind the last one anything may hide.
    """
    end, last = data, "the header"
    for key, info in sorted(infos.items(), key=lambda item: (item[1].begin, item[1].nbytes)):
        if info.begin != end:
            how = "overlaps" if info.begin < end else "leaves a hole behind"
            raise InputError(f"{path} is garbled: {key} {how} {last}")
        end, last = info.begin + info.nbytes, key
    if size < end:
        raise InputError(f"{path} is truncated: it should have {end} bytes and has {size}")
    if size > end:
        raise InputError(f"{path} is garbled: {size - end} bytes stand behind its last tensor")


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that a file carries beside its tensors; {} for a pickled file."""
    if is_gguf(path):
        notes = read_gguf_header(path).notes
        return {name: text for name, text in notes.items() if isinstance(text, str)}
    return {} if is_pickled(path) else _json_header(path)[0].get(METADATA, {})


def _json_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header of a safetensors file, where its data begin, and how long the file is."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin = file.read(8)
            length = int.from_bytes(begin, "little")
            if size < 8 or length > MAX_HEADER_BYTES:
                raise InputError(f"{path} {_no_weights(begin)}")
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
        header = parse(raw, standard=True)
    except InputError as error:
        raise InputError(
            f"{path} is garbled: its safetensors header makes no sense: {error}"
        ) from None
    if not isinstance(header, dict):
        raise InputError(f"{path} is garbled: its safetensors header is no object")
    metadata = header.get(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InputError(f"{path} is garbled: its metadata are no texts")
    return header, 8 + length, size


def _no_weights(begin: bytes) -> str:
    """What is wrong with a file that begins so."""
    if not begin:
        return "is empty"
    if begin.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!", b"<htm", b"<?xm", b"<head")):
        return "is a web page, saved in place of the file that it offers: download that itself"
    if begin == b"version ":
        return "is what git-lfs leaves in place of a large file: fetch that with git lfs pull"
    return "is neither a safetensors nor a torch file (its first bytes are no header)"


def _info(path: Path, key: str, entry: Any, data: int) -> TensorInfo:
    """What the header's entry for `key` says. Raises InputError where it makes no sense."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if len(
            entry
        ) == 3 and all(type(n) is int and n >= 0 for n in (begin, end, *shape)):
            if dtype not in DTYPES:
                raise InputError(f"{path} holds {key} as {dtype}; known: {', '.join(DTYPES)}")
            info = TensorInfo(dtype, tuple(shape), data + begin)
            if end - begin == info.nbytes:
                return info
    raise InputError(f"{path} is garbled: what its header says of {key} makes no sense")


class Weights:
    """The tensors of one component, read from one or several files on demand.

    `names()` and `info` cost nothing beyond the headers; `read` yields (key, tensor) with each
    tensor mapped from the file, so that what is not asked for is never read. Iterating reads all.
    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        """Checks every header. Raises InputError for files that are missing or broken.

        Or that contradict each other: a tensor may stand in two of them only with equal numbers.
        """
        self.files = files
        self.info: dict[str, TensorInfo] = {}
        twice: set[str] = set()
        for path in files:
            header = read_header(path)
            twice |= header.keys() & self.info.keys()
            self.info.update(header)
        first: dict[str, Tensor] = {}
        for key, tensor in self.read(twice) if twice else ():
            if not _equal(first.setdefault(key, tensor), tensor):
                raise InputError(f"{files[0]} and its other shards hold {key} with other numbers")

    def names(self) -> list[str]:
        return list(self.info)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return self.read(self.info)

    def read(
        self,
        keys: Container[str],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        packed: bool = False,
    ) -> Iterator[tuple[str, Tensor]]:
        """Those of the tensors whose key is in `keys`, in the order of the files.

        dtype: of the floating ones. What is stored in it, in place (see `aligned`), and goes
            nowhere else stays mapped; of the rest no page is kept once it is copied. None leaves
            each as it is stored and where it is: to keep, not to compute with.
        packed: with no dtype, quantized weights are given as a `Packed`; else they are worked out,
            and without a dtype rounded to float16.
        """
        for path in self.files:
            if is_pickled(path):
                for key, tensor in read_pickled(path).items():
                    if key in keys:
                        yield key, aligned(as_dtype(tensor.to(device), dtype))
            else:
                yield from _read_mapped(path, keys, dtype, device, packed)


def _read_mapped(
    path: Path,
    keys: Container[str],
    dtype: torch.dtype | None,
    device: torch.device | str,
    packed: bool,
) -> Iterator[tuple[str, Tensor]]:
    infos = sorted(read_header(path).items(), key=lambda item: item[1].begin)
    # Private: whoever writes into a tensor (a LoRA) writes into memory, never into the file.
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    place = torch.device(device)
    upload = Upload(place) if place.type == "cuda" else None
    for key, info in infos:
        if key not in keys:
            continue
        stored = _mapped(mapped, info)
        if isinstance(stored, Packed):
            if packed and dtype is None:
                yield key, stored.to(device)
                continue
            tensor = stored.to(device, UNPACKED if dtype is None else dtype)
        else:
            tensor = stored.to(place) if upload is None else upload(stored)
            if dtype is not None:
                tensor = aligned(as_dtype(tensor, dtype))
        if tensor.data_ptr() != stored.data_ptr():
            _forget(mapped, info)
        yield key, tensor


def _mapped(mapped: mmap.mmap, info: TensorInfo) -> Tensor:
    """A tensor of a mapped file, as it is stored there."""
    block = BLOCKS.get(info.dtype)
    if block is not None:
        data = _flat(mapped, info, torch.uint8, info.nbytes).view(-1, block.nbytes)
        return Packed(Blocks(data, block), info.shape)
    data = _flat(mapped, info, DTYPES[info.dtype], info.count)
    if info.scale is None:
        return data.view(info.shape)
    scale = _flat(mapped, info.scale, DTYPES[info.scale.dtype], info.scale.count)
    return Packed(Scaled(data, scale.float()), info.shape)


def _flat(mapped: mmap.mmap, info: TensorInfo, dtype: torch.dtype, count: int) -> Tensor:
    if not count:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=info.begin)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def _forget(mapped: mmap.mmap, info: TensorInfo) -> None:
    """Let go of the pages of a tensor that has been copied: half of a model's size in memory."""
    if hasattr(mmap, "MADV_DONTNEED"):
        begin = info.begin - info.begin % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_DONTNEED, begin, info.begin + info.nbytes - begin)


def as_dtype(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """`tensor` in `dtype` when both are floating; integer tensors are never cast."""
    if dtype is None or not tensor.is_floating_point() or tensor.dtype == dtype:
        return tensor
    if {tensor.dtype, dtype} == {torch.float16, torch.bfloat16} and tensor.device.type == "cpu":
        return _between_halves(tensor, dtype)
    return tensor.to(dtype)


def _between_halves(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """float16 to bfloat16 or back: torch's kernels are vectorised to and from float32 only.

    Through float32, 1 MB of it at a time, which stays in the processor's caches: the same bits in
    less than half the time.
    """
    size = 1 << 18
    single = torch.empty(min(size, tensor.numel()), dtype=torch.float32)
    out = torch.empty(tensor.shape, dtype=dtype)
    pieces = zip(tensor.reshape(-1).split(size), out.view(-1).split(size), strict=True)
    for stored, wanted in pieces:
        wanted.copy_(single[: len(stored)].copy_(stored))
    return out


def aligned(tensor: Tensor) -> Tensor:
    """`tensor`, copied where it does not begin on a 64-byte boundary, as torch's own all do.

    A mapped tensor begins wherever the file has it, and on a CPU that decides which kernel reads
    it: the same weights from another file would draw a picture with other last bits.
    """
    return tensor.clone() if tensor.data_ptr() % 64 else tensor
