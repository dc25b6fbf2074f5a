"""Pickled weights (.ckpt, .bin, .pt), read without running anything that is in them.

A pickle is a program. torch's restricted reader (`weights_only=True`) knows tensors, numbers, texts
and containers; a file that asks for anything else is refused by the name of what it asks for. What
it says of itself is held against the file before (`pickle_scan`).
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdcore.checkpoints.pickle_scan import check_archive, check_old
from sdcore.errors import InputError

SAFE_TORCH = (2, 10)  # before, what a pickle holds could break out of the reader: CVE-2026-24747

# How torch's two formats begin: a zip archive, and before 1.6 a pickled magic number.
_ZIP, _OLD = b"PK\x03\x04", b"\x80\x02\x8a\x0a"
_PICKLE_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth")


class _Inert:
    """Stands where a published file names a class, as text would; it has nothing to run."""


class _Dict(dict):
    """Stands for torch's ParameterDict, in which the first textual inversions lie."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.update(state["_parameters"])


# SD 1.x's own .ckpt files note which callback saved them, by its class.
_STAND_INS = [
    (_Inert, f"{package}.callbacks.model_checkpoint.ModelCheckpoint")
    for package in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
] + [(_Dict, "torch.nn.modules.container.ParameterDict")]


def is_pickled(path: Path) -> bool:
    """Whether `path` is torch's own format, new or old: by its first bytes, whatever its name."""
    try:
        with path.open("rb") as file:
            begin = file.read(8)
    except OSError:
        return False
    # As the length of a safetensors header none of them makes sense: it would be of petabytes.
    if begin.startswith((_ZIP, _OLD)) and any(begin[4:]):
        return True
    return begin[:1] == b"\x80" and path.suffix in _PICKLE_SUFFIXES


def read_pickled(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors in a pickled file, by their keys: those of its `state_dict` where it has one.

    Args:
        device: "meta" reads names, shapes and dtypes only.

    Raises:
        InputError: a broken file, one that holds tensors without plain numbers, one that needs
            code to be run; any file under a torch whose reader has a known hole.
    """
    tensors = flat(load_pickle(path, device))
    for key, tensor in tensors.items():
        check_plain(path, key, tensor, device)
    return tensors


def check_plain(path: Path, key: str, tensor: Tensor, device: str = "cpu") -> None:
    """Raises InputError for a tensor that is anything but its numbers, each stored once."""
    what = None
    if tensor.layout is not torch.strided:
        what = "a sparse tensor"
    elif tensor.is_quantized:
        what = "a quantized tensor"
    elif device != "meta" and tensor.is_meta:
        what = "a meta tensor, which has no numbers"
    elif tensor.numel() * tensor.element_size() > path.stat().st_size:
        what = "more numbers than the file has"
    if what is not None:
        raise InputError(f"{path} holds {key} as {what}: save it as a plain one")


def load_pickle(path: Path, device: str = "cpu") -> Any:
    """Whatever a pickled file holds. Raises InputError as `read_pickled` does."""
    version = torch.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < SAFE_TORCH:
        raise InputError(
            f"{path} is a pickle, and the reader of torch {version} has a known hole "
            "(CVE-2026-24747): install torch 2.10 or newer, or take a .safetensors file"
        )
    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # of old forms, which are read all the same
            stat = path.stat()
            _check(path, stat.st_mtime_ns, stat.st_size)
            return _load(path, device)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{named[1]}, which is code" if named else "more than tensors"
        raise InputError(
            f"{path} needs {what}: pickled code is never run; "
            "convert the file to .safetensors where you trust it"
        ) from None
    except Exception as error:  # torch's readers stumble over garbled bytes in every way there is
        reason = re.split(r"\n|\. ", str(error))[0] or type(error).__name__
        raise InputError(f"{path} is garbled: {reason}") from None


@lru_cache(maxsize=32)
def _check(path: Path, changed: int, size: int) -> None:
    """What the file says of itself, as it was then: a changed one is another entry."""
    if not check_archive(path):
        check_old(path)


def _load(path: Path, device: str) -> Any:
    if path.suffix == ".safetensors":  # by whose name torch would read it as what it is not
        with path.open("rb") as file:
            return torch.load(file, map_location=device, weights_only=True)
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        return torch.load(path, map_location=device, weights_only=True)  # older than 1.6


def flat(value: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint: of its state_dict, if it has one, or of A1111's embeddings."""
    for name in ("state_dict", "model", "module", "string_to_param"):
        if isinstance(value, Mapping) and isinstance(value.get(name), Mapping):
            value = value[name]
    return _tensors(value) if isinstance(value, Mapping) else {}


def _tensors(value: Any, head: str = "", depth: int = 4) -> dict[str, Tensor]:
    """Tensors in dictionaries and lists, those of IP-Adapters and hypernetworks, as A.B.C."""
    if isinstance(value, Tensor):
        return {head: value.detach()}
    items = value.items() if isinstance(value, Mapping) else ()
    items = enumerate(value) if isinstance(value, list | tuple) else items
    if not depth:
        return {}
    inner = [_tensors(v, f"{head}.{k}" if head else str(k), depth - 1) for k, v in items]
    return {key: tensor for tensors in inner for key, tensor in tensors.items()}
