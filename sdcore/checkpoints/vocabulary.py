"""CLIP's vocabulary for single files, which hold none: beside the file, or already in the cache."""

from collections.abc import Iterator
from pathlib import Path

from sdcore.checkpoints.read import read_json
from sdcore.errors import InputError

START = "<|startoftext|>"  # no vocabulary but CLIP's has it


def find_vocabulary(file: Path, words: int | None) -> Path | None:
    """The tokenizer folder for a model of so many words; None where there is none at hand.

    A `tokenizer/` folder beside `file` comes first, then whatever of the right size lies in the
    Hugging Face cache: OpenAI's own, or that of any Stable Diffusion. Nothing is downloaded.
    """
    beside = file.parent / "tokenizer"
    if beside.is_dir():
        return beside
    return next((folder for folder in _cached() if _words(folder) == words), None)


def _cached() -> Iterator[Path]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    yield from sorted(cache.glob("models--openai--clip-vit-large-patch14/snapshots/*"))
    yield from sorted(cache.glob("models--*/snapshots/*/tokenizer"))


def _words(folder: Path) -> int | None:
    """How many entries the CLIP vocabulary in `folder` has; None where it holds none."""
    whole, vocab, merges = (folder / n for n in ("tokenizer.json", "vocab.json", "merges.txt"))
    try:
        if whole.is_file():
            words = read_json(whole).get("model", {}).get("vocab", {})
        elif vocab.is_file() and merges.is_file():
            words = read_json(vocab)
        else:
            return None
    except (InputError, AttributeError):
        return None
    return len(words) if START in words else None
