"""Where a model lies: bundled with the package, in a folder or a file, or on the hub."""

import os
import re
from pathlib import Path

from sdcore.errors import InputError, unknown

INDEX = "model_index.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# What is read of a hub repository: configurations, vocabularies, float weights in safetensors.
_HUB_FILES = [
    INDEX,
    "scheduler/*.json",
    "tokenizer*/*.json",
    "tokenizer*/*.txt",
    "text_encoder*/config.json",
    "text_encoder*/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]


def bundled_models() -> dict[str, Path]:
    """Names and folders of the models that ship with sdcore."""
    # A wheel carries weights/ inside the package; the source tree has it beside the package.
    package = Path(__file__).resolve().parent.parent
    found: dict[str, Path] = {}
    for place in (package / "weights", package.parent / "weights"):
        for index in sorted(place.glob(f"*/{INDEX}")):
            found.setdefault(index.parent.name, index.parent)
    return found


def find_model(model: str | Path) -> Path:
    """The folder of a model in the diffusers layout, or its single file.

    Args:
        model: a bundled name, a folder, a file, or a hub id "owner/name". A hub id is looked up in
            the Hugging Face cache first and fetched only when it is not there.

    Raises:
        InputError: nothing of that name; a hub id while offline.
    """
    bundled = bundled_models()
    if isinstance(model, str) and model in bundled:
        return bundled[model]
    path = Path(model).expanduser()
    if path.is_dir() or path.is_file():
        return path
    name = str(model)
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        return _from_hub(name)
    if "/" in name or os.sep in name or name.endswith(".safetensors"):
        raise InputError(f"no model at {name}: there is no such file or folder")
    raise unknown("model", name, bundled)


def _from_hub(repo: str) -> Path:
    """The snapshot folder of a hub id in the ordinary Hugging Face cache, fetched if need be."""
    # Imported here: it costs a good part of a second and most runs never ask the hub.
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, local_files_only=True))
        if (folder / INDEX).is_file() and any(folder.glob("unet/*.safetensors")):
            return folder
    except HFValidationError as error:
        raise InputError(f"{repo!r} is no folder here and no hub id: {error}") from None
    except LocalEntryNotFoundError:
        pass
    if constants.HF_HUB_OFFLINE:
        raise InputError(
            f"{repo} is no folder here and not in the Hugging Face cache, and HF_HUB_OFFLINE is set"
        )
    try:
        return Path(snapshot_download(repo, allow_patterns=_HUB_FILES))
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "?"
        raise InputError(f"the hub answered {status} for {repo}: is the name right?") from None
    except Exception as error:
        # The client lets its HTTP library's own exceptions through; all of them mean: no network.
        raise InputError(
            f"{repo} is no folder here, not in the Hugging Face cache, and the hub cannot be "
            f"reached ({type(error).__name__})"
        ) from None
