"""Where a model lies: bundled with the package, in a folder or a file, or on the hub."""

import os
import re
from pathlib import Path

from sdcore.checkpoints.weight_files import INDEX
from sdcore.errors import InputError, unknown
from sdcore.paths import path_of

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".pt", ".pth", ".gguf")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form owner/name."""
    return _HUB_ID.fullmatch(name) is not None and not name.startswith(".")


def bundled_models() -> dict[str, Path]:
    """Names and folders of the models that ship with sdcore."""
    return {index.parent.name: index.parent for index in _bundled(f"*/{INDEX}")}


def bundled_adapters() -> dict[str, Path]:
    """Names and files of the adapters that ship with sdcore."""
    return {file.stem: file for file in _bundled("*.safetensors")}


def bundled_embeddings() -> dict[str, Path]:
    """Names and files of the learned words that ship with sdcore."""
    return {file.stem: file for file in _bundled("embeddings/*.safetensors")}


def _bundled(pattern: str) -> list[Path]:
    # A wheel carries weights/ inside the package; the source tree has it beside the package.
    package = Path(__file__).resolve().parent.parent
    places = (package.parent / "weights", package / "weights")
    return [path for place in places for path in sorted(place.glob(pattern))]


def is_here(model: str | Path, variant: str | None = None, revision: str | None = None) -> bool:
    """Whether `find_model` would find it without asking the hub."""
    path = path_of(model)
    if model in bundled_models() or path.is_dir() or path.is_file():
        return True
    if not is_hub_id(str(model)):
        return False
    from sdcore.checkpoints.hub import cached

    return cached(str(model), variant, revision) is not None


def find_model(model: str | Path, variant: str | None = None, revision: str | None = None) -> Path:
    """The folder of a model in the diffusers layout, or its single file.

    Args:
        model: a bundled name, a folder, a file, or a hub id "owner/name". A hub id is looked up in
            the Hugging Face cache first and fetched only when it is not there.
        variant, revision: what of a hub id is fetched.

    Raises:
        InputError: nothing of that name; a revision of what is no hub id; a hub id while offline.
    """
    bundled = bundled_models()
    path = path_of(model)
    if isinstance(model, str) and model in bundled:
        path = bundled[model]
    if path.is_dir() or path.is_file():
        if revision is not None:
            raise InputError(f"{path} is here, and no hub id: it has no revision {revision!r}")
        return path
    name = str(model)
    if name.startswith(("https://", "http://")):
        raise InputError(f"{name} is an address: name a model on the hub as owner/name")
    is_file = Path(name).suffix in WEIGHT_SUFFIXES
    if is_hub_id(name) and not is_file:
        from sdcore.checkpoints.hub import fetch

        return fetch(name, variant, revision)
    if "/" in name or os.sep in name or is_file:
        raise InputError(f"no model at {name}: there is no such file or folder")
    raise unknown("model", name, bundled)
