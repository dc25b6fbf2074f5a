"""Pickled weights (.ckpt, .bin, .pt), read without running anything that is in them.

A pickle is a program. torch's restricted reader (`weights_only=True`) knows tensors, numbers, texts
and containers; a file that asks for anything else is refused by the name of what it asks for.
"""

from __future__ import annotations

import pickle
import re
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


# SD 1.x's own .ckpt files note which callback saved them, by its class.
_INERT = tuple(
    f"{package}.callbacks.model_checkpoint.ModelCheckpoint"
    for package in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
)


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
    inert = [(_Inert, name) for name in _INERT]
    try:
        with torch.serialization.safe_globals(inert):  # type: ignore[arg-type]
            return _load(path, device)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{named[1]}, which is code" if named else "more than tensors"
        raise InputError(
            f"{path} needs {what}: pickled code is never run; "
            "convert the file to .safetensors where you trust it"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = re.split(r"\n|\. ", str(error))[0] or type(error).__name__
        raise InputError(f"{path} is garbled: {reason}") from None


def _load(path: Path, device: str) -> Any:
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        return torch.load(path, map_location=device, weights_only=True)  # older than 1.6


def flat(value: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint: of its state_dict, if it has one."""
    for name in ("state_dict", "model", "module"):
        if isinstance(value, Mapping) and isinstance(value.get(name), Mapping):
            value = value[name]
    if not isinstance(value, Mapping):
        return {}
    return {str(k): t.detach() for k, t in value.items() if isinstance(t, Tensor)}
