"""CLIP's vocabulary for single files, which hold none: beside the file, or already in the cache."""

from collections.abc import Iterator
from pathlib import Path

from sdcore.checkpoints.read import read_json
from sdcore.errors import InputError

ADDED = "added_tokens.json"  # words that the vocabulary learned: {word: id}
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
    if not whole.is_file() and not (vocab.is_file() and merges.is_file()):
        return None
    try:
        words = _vocabulary(folder)
        return len(words.keys() | added_words(folder).keys()) if START in words else None
    except (InputError, AttributeError):
        return None


def added_words(folder: Path) -> dict[str, int]:
    """Words of a tokenizer's folder beyond its vocabulary (textual inversion), and their ids.

    Raises InputError for those that make no sense.
    """
    path = folder / ADDED
    words = read_json(path) if path.is_file() else {}
    if not all(type(number) is int for number in words.values()):
        raise InputError(f"{path} should hold an id for each word")
    if (folder / "tokenizer.json").is_file():
        known = _vocabulary(folder)
        more = read_json(folder / "tokenizer.json").get("added_tokens") or []
        for entry in more if isinstance(more, list) else [more]:
            match entry:
                case {"content": str(word), "id": int(number)}:
                    words |= {} if word in known else {word: number}
                case _:
                    raise InputError(f"{folder / 'tokenizer.json'}: its added_tokens make no sense")
    return words


def _vocabulary(folder: Path) -> dict[str, int]:
    whole = folder / "tokenizer.json"
    if whole.is_file():
        model = read_json(whole).get("model")
        words = model.get("vocab") if isinstance(model, dict) else None
        if not isinstance(words, dict):
            raise InputError(f"{whole} holds no vocabulary")
        return words
    return read_json(folder / "vocab.json")
