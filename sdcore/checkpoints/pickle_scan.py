"""What a pickle says, opcode by opcode, before anything is made of it.

torch's readers trust a file's own numbers: a storage that is said to be larger than its record
reads on into the next one, and what stands behind the end of a pickle is passed over. Here they are
held against the file first; no object is built, and nothing is allocated.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from sdcore.errors import InputError

MAX_NESTED = 8  # tuples inside each other: whoever hashes one walks all of it
_PICKLES = 5  # before 1.6: magic number, version, system, the objects, the storages' keys
_MARK = object()


@dataclass(frozen=True)
class _Tuple:
    items: tuple[Any, ...]
    nested: int


@dataclass(frozen=True)
class Scan:
    """What one pickle speaks of."""

    storages: Mapping[str, int]  # key -> bytes
    texts: tuple[str, ...]  # in the order in which they stand


def check_archive(path: Path) -> bool:
    """Whether `path` is a zip archive, torch's format since 1.6; raises InputError for a false one.

    False are: one that is compressed, which torch never writes (mapped, its bytes would be taken
    for the numbers; unpacked, 400 kB may become gigabytes); one of big-endian numbers, over which
    torch falls; records that lie in each other, and any that are not as large as they should be.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # torch's format of before 1.6, or a broken one
    with archive:
        infos = archive.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise InputError(f"{path} is a compressed archive, which torch's own files never are")
        names = {info.filename.partition("/")[2]: info for info in infos}
        if len(names) < len(infos) or sum(i.file_size for i in infos) > path.stat().st_size:
            raise InputError(f"{path} is garbled: two of its records are one")
        if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
            raise InputError(
                f"{path} holds its numbers in big-endian order: save it again as .safetensors, "
                "which has one order only"
            )
        if "data.pkl" not in names:
            raise InputError(f"{path} is garbled: it is no archive of torch's (no data.pkl)")
        data = io.BytesIO(archive.read(names["data.pkl"]))
    storages = scan(data).storages
    if data.read(1):
        raise InputError(f"{path} is garbled: bytes stand behind the end of its pickle")
    for key, size in storages.items():
        record = names.get(f"data/{key}")
        if record is None or record.file_size != size:
            raise InputError(f"{path} is garbled: its record data/{key} is not of {size} bytes")
    return True


def check_old(path: Path) -> None:
    """Raises InputError where a file of torch's format before 1.6 is not as long as it says."""
    with path.open("rb") as file:
        scans = [scan(file) for _ in range(_PICKLES)]
        begin, size = file.tell(), path.stat().st_size
    storages, keys = scans[-2].storages, scans[-1].texts
    if not storages.keys() >= set(keys):
        raise InputError(f"{path} is garbled: it names a storage that is not there")
    end = begin + sum(8 + storages[key] for key in keys)
    if end != size:
        raise InputError(f"{path} is garbled: it should have {end} bytes and has {size}")


def scan(file: IO[bytes]) -> Scan:
    """Read one pickle from where `file` stands to its end. Raises ValueError and its like."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    storages: dict[str, int] = {}
    texts: list[str] = []
    for op, argument, _ in pickletools.genops(file):
        match op.name:
            case "MARK":
                stack.append(_MARK)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]  # type: ignore[index]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])  # type: ignore[index]
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(_nested(_taken(stack, op)))
            case "BINPERSID":
                key, size = _storage(stack.pop())
                if storages.setdefault(key, size) != size:
                    raise ValueError(f"its storage {key} has two sizes")
                stack.append(None)
            case _:
                _taken(stack, op)
                stack += [argument] * len(op.stack_after)
                if isinstance(argument, str) and op.name != "GLOBAL":
                    texts.append(argument)
    return Scan(storages, tuple(texts))


def _taken(stack: list[Any], op: pickletools.OpcodeInfo) -> list[Any]:
    """What `op` takes from the stack; back to the last mark where it takes all there is."""
    count = len(op.stack_before)
    if pickletools.stackslice in op.stack_before:
        begin = max(i for i, value in enumerate(stack) if value is _MARK)
        count = len(stack) - begin + op.stack_before.index(pickletools.markobject)
    if count > len(stack):
        raise ValueError("its pickle takes more than there is")
    taken = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return [value for value in taken if value is not _MARK]


def _nested(items: list[Any]) -> _Tuple:
    depth = 1 + max((i.nested for i in items if isinstance(i, _Tuple)), default=0)
    if depth > MAX_NESTED:
        raise ValueError(f"over {MAX_NESTED} tuples lie inside each other")
    return _Tuple(tuple(items), depth)


def _storage(named: Any) -> tuple[str, int]:
    """Key and bytes of a storage as torch names it: ("storage", its class, key, place, numbers)."""
    match named:
        case _Tuple(("storage", str(kind), str(key), str(), int(count), *_)) if count >= 0:
            module, _, name = kind.partition(" ")
            if module == "torch.storage" and name == "UntypedStorage":
                return key, count
            storage = getattr(torch, name, None) if module == "torch" else None
            if isinstance(storage, type) and hasattr(storage, "dtype"):
                return key, count * storage.dtype.itemsize
    raise ValueError("it names a storage as torch never does")
