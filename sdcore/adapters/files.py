"""Reading adapters: tensors and the notes beside them, nothing executed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from sdcore.checkpoints.find import bundled_adapters, bundled_embeddings
from sdcore.checkpoints.read import Weights, read_json, read_metadata
from sdcore.errors import InputError
from sdcore.paths import path_of
from sdcore.strict_json import parse

NAMES = (
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
)


def find_adapter(path: str | Path) -> Path:
    """The file of a bundled name, the file itself, or that of a folder of diffusers or PEFT.

    Raises InputError.
    """
    if (bundled := bundled_adapters().get(str(path))) is not None:
        return bundled
    path = path_of(path)
    if path.is_dir():
        files = [path / name for name in NAMES if (path / name).is_file()]
        if not files:
            raise InputError(f"{path} holds none of {', '.join(NAMES)}")
        return files[0]
    if not path.is_file():
        if str(path) in bundled_embeddings():
            raise InputError(f"{path} is a learned word, and no LoRA: --embedding takes it")
        raise missing("adapter", path, bundled_adapters())
    return path


def missing(kind: str, path: Path, bundled: Iterable[str]) -> InputError:
    """What is said where nothing is: of what looks like a name, which there are."""
    text = f"no {kind} at {path}: there is no such file"
    if path.suffix or len(path.parts) > 1:
        return InputError(text)
    return InputError(f"{text}; the names that are known are {', '.join(sorted(bundled))}")


def find_embedding(path: str | Path) -> Path:
    """The file of a bundled name, or the path itself, whatever is there. Raises InputError."""
    bundled = bundled_embeddings().get(str(path))
    return path_of(path) if bundled is None else bundled


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor in a .safetensors, .bin or .pt file by its key. Raises InputError."""
    return dict(Weights((path,)))


def read_notes(path: Path) -> dict[str, Any]:
    """PEFT's configuration of the adapter: in the file's metadata, or beside it; {} for none."""
    beside = path.parent / "adapter_config.json"
    if path.name.startswith("adapter_model") and beside.is_file():
        return read_json(beside)
    try:
        notes = parse(read_metadata(path).get("lora_adapter_metadata", "{}"))
    except InputError as error:
        raise InputError(f"{path} is garbled: {error}") from None
    return notes if isinstance(notes, dict) else {}
