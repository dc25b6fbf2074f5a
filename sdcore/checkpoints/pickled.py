"""Pickled weights (.ckpt, .bin, .pt), read without running anything that is in them.

A pickle is a program. torch's restricted reader (`weights_only=True`) knows tensors, numbers, texts
and containers; a file that asks for anything else is refused by the name of what it asks for.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdcore.errors import InputError

# How torch's two formats begin: a zip archive, and before 1.6 a pickled magic number.
_MAGIC = (b"PK\x03\x04", b"\x80\x02\x8a\x0a")
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
    """Whether `path` is torch's own format, new or old: by its first bytes."""
    if path.suffix == ".safetensors":
        return False
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError:
        return False
    return begin in _MAGIC or (begin[:1] == b"\x80" and path.suffix in _PICKLE_SUFFIXES)


def read_pickled(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors in a pickled file, by their keys: those of its `state_dict` where it has one.

    Args:
        device: "meta" reads names, shapes and dtypes only.

    Raises:
        InputError: a broken file, one that holds no tensors, one that needs code to be run.
    """
    return flat(load_pickle(path, device))


def load_pickle(path: Path, device: str = "cpu") -> Any:
    """Whatever a pickled file holds. Raises InputError as `read_pickled` does."""
    _check_stored(path)
    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # of old forms, which are read all the same
            return _load(path, device)
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


def _check_stored(path: Path) -> None:
    """Raises InputError for a compressed archive, which torch never writes.

    Mapped, its bytes would be taken for the numbers; unpacked, 400 kB may become gigabytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch's format of before 1.6, or a broken one
    if packed:
        raise InputError(f"{path} is a compressed archive, which torch's own files never are")


def _load(path: Path, device: str) -> Any:
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
    if not isinstance(value, Mapping):
        return {}
    return {str(k): t.detach() for k, t in value.items() if isinstance(t, Tensor)}
