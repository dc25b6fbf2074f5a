"""Text to token ids, and what did not fit.

A CLIP text encoder reads a fixed number of tokens (77): start, at most 75 of text, end, padding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from sdcore.checkpoints.read import read_json
from sdcore.checkpoints.vocabulary import added_words
from sdcore.errors import InputError
from sdcore.prompts.grammar import check_length

START, END = "<|startoftext|>", "<|endoftext|>"
# How CLIP's tokenizers normalise spaces and split words, as transformers writes them.
PATTERNS = (
    r"\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
)
LENGTH = 77  # what every published CLIP text encoder has


@dataclass(frozen=True)
class Tokens:
    """A prompt as the text encoder reads it."""

    ids: tuple[int, ...]  # exactly `Tokenizer.length` of them
    count: int  # how many tokens the whole text has, before anything is cut
    cut: str  # the end of the prompt that did not fit, as typed; "" when all of it did


@dataclass(frozen=True)
class Unit:
    """What is never torn apart: one token, or all vectors of a learned word."""

    ids: tuple[int, ...]
    begin: int  # where in the text it stands


@dataclass(frozen=True)
class Tokenizer:
    """A CLIP byte-pair tokenizer with the special tokens of its checkpoint.

    added: learned words (textual inversion) in lower case, and the ids of their vectors, beyond
        the vocabulary.
    """

    backend: Backend
    start: int
    end: int
    pad: int
    length: int
    added: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __call__(self, text: str) -> Tokens:
        """Token ids of `text`; what goes beyond `length` is cut, and told."""
        room, ids, cut = self.length - 2, [], None
        count = 0
        for unit in self.units(text):
            count += len(unit.ids)
            if cut is None and count > room:
                cut = text[unit.begin :].strip()
            if cut is None:
                ids += unit.ids
        return Tokens(self.framed(ids), count, "" if cut is None else cut)

    def units(self, text: str) -> list[Unit]:
        """The tokens of `text`, without start, end and padding. Raises InputError if it is long."""
        units, begin = [], 0
        check_length(text)
        for found in self._added.finditer(text) if self.added else ():
            units += self._plain(text[begin : found.start()], begin)
            units.append(Unit(self.added[found[0].lower()], found.start()))
            begin = found.end()
        return units + self._plain(text[begin:], begin)

    def framed(self, ids: Sequence[int]) -> tuple[int, ...]:
        """At most `length` - 2 ids with start, end and padding around them."""
        row = (self.start, *ids, self.end)
        return row + (self.pad,) * (self.length - len(row))

    def _plain(self, text: str, begin: int) -> list[Unit]:
        with _panics_told("its tokenizer cannot read a prompt"):
            coded = self.backend.encode(text, add_special_tokens=False)
        at = (begin + offset for offset, _ in coded.offsets)
        return [Unit((i,), place) for i, place in zip(coded.ids, at, strict=True)]

    @cached_property
    def _added(self) -> re.Pattern[str]:
        return words_in_text(self.added)


def words_in_text(words: Iterable[str]) -> re.Pattern[str]:
    """Finds learned words as they stand in a text: whole, in any case, the longest first."""
    longest = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)", re.IGNORECASE)


def load_tokenizer(
    folder: Path, pad_token: str | None = None, words: Mapping[str, int] | None = None
) -> Tokenizer:
    """The tokenizer in a checkpoint's `tokenizer/` folder.

    pad_token: what the model pads with, where the folder is not its own; None: as it says.
    words: what it knows beside the folder's vocabulary and `added_tokens.json`, with their ids.

    `tokenizer.json` opens by itself; `vocab.json` with `merges.txt` needs transformers, which
    is imported then and only then. Raises InputError for missing or unreadable files.
    """
    backend = _open_backend(folder)
    _add_words(backend, folder, {**added_words(folder), **({} if words is None else words)})
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


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _add_words(backend: Backend, folder: Path, words: Mapping[str, int]) -> None:
    """Words of a text encoder that learned some: each is one id behind the vocabulary."""
    for word, number in sorted(words.items(), key=lambda item: item[1]):
        if backend.token_to_id(word) == number:
            continue
        if backend.token_to_id(word) is not None or number != backend.get_vocab_size():
            raise InputError(
                f"{folder}: its added word {word!r} has the id {number}; the next one that is "
                f"free is {backend.get_vocab_size()}"
            )
        backend.add_tokens([AddedToken(word, normalized=True)])


def _open_backend(folder: Path) -> Backend:
    whole = folder / "tokenizer.json"
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if whole.is_file():
        _check_rules(whole, read_json(whole))
        with _panics_told(f"{whole} is no tokenizer"):
            return Backend.from_file(str(whole))
    for path in (vocab, merges):
        if not path.is_file():
            raise InputError(f"{path} is missing (and so is tokenizer.json)")
    # transformers knows CLIP's normaliser and pre-tokeniser; 3 s to import, hence only here.
    from transformers import CLIPTokenizer

    with _panics_told(f"{folder} holds no CLIP vocabulary"):
        return CLIPTokenizer(vocab=str(vocab), merges=str(merges)).backend_tokenizer


@contextmanager
def _panics_told(what: str) -> Iterator[None]:
    """What the tokenizers package raises, as one line: plain Exception, and where it panics what is
    no Exception at all."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise InputError(f"{what}: {error}") from None
        raise


def _check_rules(path: Path, rules: Mapping[str, Any]) -> None:
    """Raises InputError for regular expressions that CLIP's tokenizers do not have.

    A stranger's may take for ever on a prompt of a few words.
    """
    for part in ("normalizer", "pre_tokenizer"):
        for pattern in _patterns(rules.get(part)):
            if pattern not in PATTERNS:
                raise InputError(f"{path} splits words by {pattern!r}, which is not CLIP's rule")


def _patterns(rule: Any) -> Iterator[str]:
    """The patterns in a rule of a tokenizer.json, wherever they stand."""
    if isinstance(rule, dict):
        pattern = rule.get("pattern")
        if isinstance(pattern, dict):
            yield from map(str, pattern.values())
        for inner in rule.values():
            yield from _patterns(inner) if isinstance(inner, list) else ()
    for inner in rule if isinstance(rule, list) else ():
        yield from _patterns(inner)
