"""Models on the hub: only what will be read is fetched, into the ordinary Hugging Face cache.

huggingface_hub does the fetching. Its environment is honoured as everywhere: HF_HOME, HF_TOKEN,
HF_ENDPOINT (a mirror), HF_HUB_OFFLINE; it resumes what was cut off and shows progress.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from sdcore.checkpoints.folder import PARTS, open_folder
from sdcore.checkpoints.weight_files import (
    CONFIG,
    INDEX,
    TOKENIZER_FILES,
    has_variant,
    shards,
    weights_name,
)
from sdcore.errors import InputError

VOCABULARY = "openai/clip-vit-large-patch14"


def fetch(repo: str, variant: str | None = None, revision: str | None = None) -> Path:
    """The folder of a hub id in the cache; what is not there yet is fetched.

    Args:
        repo: "owner/name" of a whole model, or of one component.
        variant: "fp16" ...; revision: a branch, a tag or a commit.

    Raises:
        InputError: no such repository or revision, nothing in it that is read here, offline.
    """
    from huggingface_hub import constants

    folder, lacking = _cached(repo, revision), f"{repo} is no folder here and not in the "
    if folder is not None:
        try:
            return _checked(folder, variant)
        except InputError as error:
            lacking = f"{error}: it is not whole in the "
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"{lacking}Hugging Face cache, and HF_HUB_OFFLINE is set")
    return _asked(repo, lambda: _download(repo, variant, revision))


def cached(repo: str, variant: str | None = None, revision: str | None = None) -> Path | None:
    """The folder of a hub id where all that is read of it lies in the cache; None elsewhere."""
    folder = _cached(repo, revision)
    try:
        return None if folder is None else _checked(folder, variant)
    except InputError:
        return None


def fetch_vocabulary() -> Path:
    """CLIP's vocabulary, for single files, which hold none: 1.5 MB. Raises InputError."""
    from huggingface_hub import snapshot_download

    names = list(TOKENIZER_FILES)
    return _asked(VOCABULARY, lambda: Path(snapshot_download(VOCABULARY, allow_patterns=names)))


def _cached(repo: str, revision: str | None) -> Path | None:
    """The folder of `repo` in the cache, whole or not."""
    # Imported here: it costs a good part of a second and most runs never ask the hub.
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        paths = (try_to_load_from_cache(repo, name, revision=revision) for name in (INDEX, CONFIG))
        return next((Path(path).parent for path in paths if isinstance(path, str)), None)
    except HFValidationError as error:
        raise InputError(f"{repo!r} is no folder here and no hub id: {error}") from None


def _checked(folder: Path, variant: str | None) -> Path:
    """`folder`, where everything in it that will be read is there."""
    names = {path.relative_to(folder).as_posix() for path in folder.glob("*")}
    if CONFIG in names and any(weights_name(part, names, variant) for part in PARTS):
        return folder
    checkpoint = open_folder(folder, variant)
    files = [file for component in checkpoint.components.values() for file in component.files]
    for place in checkpoint.tokenizers.values():
        if not (place / "tokenizer.json").is_file():
            files += [place / "vocab.json", place / "merges.txt"]
    lacking = [file for file in files if not file.is_file()]
    if lacking:
        raise InputError(f"{lacking[0]} is missing")
    return folder


def _download(repo: str, variant: str | None, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    # One question, asked once: the listing by pages is asked for half a minute without a network.
    names = [file.rfilename for file in HfApi().model_info(repo, revision=revision).siblings or ()]
    wanted = files_read(repo, names, variant)
    folder = Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
    indices = [name for name in wanted if ".index." in name]
    if indices:
        more = [f"{Path(i).parent}/{shard}" for i in indices for shard in shards(folder / i)]
        snapshot_download(repo, revision=revision, allow_patterns=[*wanted, *more])
    return folder


def files_read(repo: str, names: Collection[str], variant: str | None = None) -> list[str]:
    """Which of a repository's files are read: configurations, vocabularies, one set of weights.

    Raises InputError where it holds no model, and for a variant that is not there.
    """
    within: dict[str, list[str]] = {}  # folder -> the files directly in it
    for name in names:
        head, _, tail = name.rpartition("/")
        within.setdefault(head, []).append(tail)
    if INDEX in names:
        places = {part: part for part in PARTS if part in within}
        wanted = [INDEX, "scheduler/scheduler_config.json"]
        wanted += [f"{f}/{n}" for f in within if f.startswith("tokenizer") for n in TOKENIZER_FILES]
    else:
        own = within.get("", [])
        places = {part: "" for part in PARTS if CONFIG in own and weights_name(part, own)}
        wanted = []
    weights = {place: weights_name(part, within[place], variant) for part, place in places.items()}
    if not places or None in weights.values():
        raise InputError(f"{repo} holds no model in the diffusers layout")
    if variant is not None and not any(
        has_variant(part, within[place], variant) for part, place in places.items()
    ):
        raise InputError(f"{repo} has no variant {variant!r} of any component")
    for place, name in weights.items():
        wanted += [f"{place}/{CONFIG}".lstrip("/"), f"{place}/{name}".lstrip("/")]
    return [name for name in wanted if name in names]


def _asked(repo: str, ask: Callable[[], Any]) -> Any:
    """What the hub answers to `ask`; what goes wrong with it is one line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RevisionNotFoundError

    try:
        return ask()
    except InputError:
        raise
    except GatedRepoError:
        raise InputError(
            f"{repo} is only for who has agreed to its terms: do so on its page, then hf auth login"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"{repo} has no such revision") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "?"
        raise InputError(f"the hub answered {status} for {repo}: is the name right?") from None
    except Exception as error:
        # The client lets its HTTP library's own exceptions through; all of them mean: no network.
        why = f"the hub cannot be reached ({type(error).__name__})"
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else why
        raise InputError(
            f"{repo} is no folder here, not in the Hugging Face cache, and {why}"
        ) from None
