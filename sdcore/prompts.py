"""Text to token ids, and what did not fit.

A CLIP text encoder reads a fixed number of tokens (77): start, at most 75 of text, end, padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from sdcore.checkpoints.read import read_json
from sdcore.errors import InputError

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77  # what every published CLIP text encoder has


@dataclass(frozen=True)
class Tokens:
    """A prompt as the text encoder reads it."""

    ids: tuple[int, ...]  # exactly `Tokenizer.length` of them
    count: int  # how many tokens the whole text has, before anything is cut
    cut: str  # the end of the prompt that did not fit, as typed; "" when all of it did


@dataclass(frozen=True)
class Tokenizer:
    """A CLIP byte-pair tokenizer with the special tokens of its checkpoint."""

    backend: Backend
    start: int
    end: int
    pad: int
    length: int

    def __call__(self, text: str) -> Tokens:
        """Token ids of `text`; what goes beyond `length` is cut, and told."""
        coded = self.backend.encode(text, add_special_tokens=False)
        room = self.length - 2
        ids = [self.start, *coded.ids[:room], self.end]
        ids += [self.pad] * (self.length - len(ids))
        cut = text[coded.offsets[room][0] :].strip() if len(coded.ids) > room else ""
        return Tokens(tuple(ids), len(coded.ids), cut)


def load_tokenizer(folder: Path, pad_token: str | None = None) -> Tokenizer:
    """The tokenizer in a checkpoint's `tokenizer/` folder.

    pad_token: what the model pads with, where the folder is not its own; None: as it says.

    `tokenizer.json` opens by itself; `vocab.json` with `merges.txt` needs transformers, which
    is imported then and only then. Raises InputError for missing or unreadable files.
    """
    backend = _open_backend(folder)
    backend.no_truncation()
    backend.no_padding()
    config = _optional_json(folder / "tokenizer_config.json")
    special = _optional_json(folder / "special_tokens_map.json")

    def token_id(role: str, default: str) -> int:
        # special_tokens_map.json wins over tokenizer_config.json: SD 2.x pads with "!" only there.
        entry = special.get(role, config.get(role)) or default
        content = entry.get("content") if isinstance(entry, dict) else entry
        found = backend.token_to_id(content) if isinstance(content, str) else None
        if found is None:
            raise InputError(f"{folder}: its {role} {content!r} is not in its vocabulary")
        return found

    length = config.get("model_max_length", LENGTH)
    if not isinstance(length, int) or not 3 <= length <= 4096:
        length = LENGTH  # transformers writes 1e30 for "not known"
    end = token_id("eos_token", END)
    if pad_token is not None:
        special["pad_token"] = pad_token
    return Tokenizer(backend, token_id("bos_token", START), end, token_id("pad_token", END), length)


def cut_warning(prompt: str, tokens: Tokens, length: int) -> str | None:
    """The line that tells a user what a cut prompt lost; None when nothing was cut."""
    if not tokens.cut:
        return None
    room = length - 2
    return (
        f"the prompt {_shortened(prompt)!r} has {tokens.count} tokens and the text encoder reads "
        f"{room}; this was cut: {tokens.cut!r}"
    )


def _shortened(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _open_backend(folder: Path) -> Backend:
    whole = folder / "tokenizer.json"
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if whole.is_file():
        try:
            return Backend.from_file(str(whole))
        except Exception as error:  # the tokenizers package raises plain Exception
            raise InputError(f"{whole} is no tokenizer: {error}") from None
    for path in (vocab, merges):
        if not path.is_file():
            raise InputError(f"{path} is missing (and so is tokenizer.json)")
    # transformers knows CLIP's normaliser and pre-tokeniser; 3 s to import, hence only here.
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer(vocab=str(vocab), merges=str(merges)).backend_tokenizer
    except Exception as error:
        raise InputError(f"{folder} holds no CLIP vocabulary: {error}") from None
