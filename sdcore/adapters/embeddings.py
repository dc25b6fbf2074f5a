"""Textual inversion (Gal et al. 2022, arXiv 2208.01618): learned words, each one vector or several.

diffusers   {"<token>": [n, D] or [D]}, .safetensors or .bin
A1111       .pt with "string_to_param" {"*": [n, D]} and "name"; .safetensors {"emb_params"}
SDXL        {"clip_l": [n, 768], "clip_g": [n, 1280]}, one for each text encoder; of pivotal tuning
            {"text_encoders_0", "text_encoders_1"}; of diffusers' script two files of one word
PNG         A1111's .pt as JSON in a text of a picture, "sd-ti-embedding"
bundled     in a LoRA's file, bundle_emb.WORD.clip_l and its like
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdcore.adapters.apply import twin
from sdcore.adapters.files import find_adapter, find_embedding, missing
from sdcore.adapters.lora import BUNDLE
from sdcore.checkpoints.find import bundled_adapters, bundled_embeddings
from sdcore.checkpoints.kinds import other_kind
from sdcore.checkpoints.pickled import check_plain, flat, is_pickled, load_pickle
from sdcore.checkpoints.read import Weights
from sdcore.errors import InputError, listed
from sdcore.models import TextEncoder
from sdcore.models.layers import placement
from sdcore.prompts import Tokenizer

_PAIR = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
_ALSO = {"text_encoders_0": "clip_l", "text_encoders_1": "clip_g", "clip_h": ""}
FOLDER_NAMES = ("learned_embeds.safetensors", "learned_embeds.bin")
SECOND_NAMES = ("learned_embeds_2.safetensors", "learned_embeds_2.bin")
PNG_TEXT = "sd-ti-embedding"


@dataclass(frozen=True)
class Embedding:
    """A learned word."""

    name: str  # the path, as the user gave it
    token: str  # how it is written in a prompt, in any case
    vectors: Mapping[str, Tensor]  # [n, D]: by "clip_l" and "clip_g", or one under ""
    second: str | None = None  # the path of SDXL's other half, where that is a file of its own

    @property
    def spec(self) -> str:
        """As `--embedding` takes it."""
        return f"{self.name}:{self.token}"


def parse_embedding(spec: str) -> tuple[str, str | None]:
    """Path and word of "FILE" or "FILE:WORD".

    >>> parse_embedding("cat.pt:<cat>")
    ('cat.pt', '<cat>')
    """
    path, colon, token = spec.rpartition(":")
    if (
        not colon
        or os.path.isfile(os.path.expanduser(spec))
        or not token
        or "/" in token
        or "\\" in token
    ):
        return spec, None
    return path, token


def open_embedding(path: str | Path, token: str | None = None) -> Embedding:
    """Read a textual inversion: a file, or the folder that a training wrote.

    token: how it will be written in a prompt; None: as the file says, or else its name.

    Raises InputError: no such file, one of no known form, one that needs code to be run.
    """
    file = find_embedding(path)
    if file.is_dir():
        files = [
            next((file / name for name in names if (file / name).is_file()), None)
            for names in (FOLDER_NAMES, SECOND_NAMES)
        ]
        halves = [open_embedding(half, token) for half in files if half is not None]
        if files[0] is None:
            raise InputError(f"{path} holds none of {', '.join(FOLDER_NAMES)}")
        return replace(joined(halves)[0], name=str(path), second=None)
    if not file.is_file():
        if str(path) in bundled_adapters():
            raise InputError(f"{path} is a LoRA, and no learned word: --lora takes it")
        raise missing("embedding", file, bundled_embeddings())
    own, vectors = _vectors(file, _held(file))
    word = (own if token is None else token).strip()
    if not word:
        raise InputError(f"{path}: the word of an embedding is empty")
    return Embedding(str(path), word, vectors)


def _held(file: Path) -> Any:
    if file.suffix.lower() == ".png":
        return _in_picture(file)
    return load_pickle(file) if is_pickled(file) else dict(Weights((file,)))


def _in_picture(file: Path) -> Any:
    """What A1111 wrote into a picture's text, its tensors from lists of numbers."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=["PNG"]) as picture:
            picture.load()  # texts may stand behind the pixels
            text = getattr(picture, "text", {}).get(PNG_TEXT)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise InputError(f"{file} is no picture: {error}") from None
    if text is None:
        raise InputError(f"{file} is a picture without an embedding ({PNG_TEXT}) in its texts")
    try:
        held = json.loads(base64.b64decode(text))
        params = {k: torch.tensor(v["TORCHTENSOR"]) for k, v in held["string_to_param"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{file}: the embedding in its texts makes no sense") from None
    return {**held, "string_to_param": params}


def joined(words: Sequence[Embedding]) -> list[Embedding]:
    """Two files of one word, one for each of SDXL's text encoders, as one; others as they are."""
    new: list[Embedding] = []
    for word in words:
        other = next((w for w in new if _halves(w, word)), None)
        if other is None:
            new.append(word)
            continue
        # The narrower one is CLIP-L's: 768 of 1280.
        one, two = sorted((other.vectors[""], word.vectors[""]), key=lambda t: t.shape[1])
        pair = {"clip_l": one, "clip_g": two}
        new[new.index(other)] = replace(other, vectors=pair, second=word.name)
    return new


def _halves(a: Embedding, b: Embedding) -> bool:
    alone = a.vectors.keys() == b.vectors.keys() == {""}
    return (
        alone
        and a.token.lower() == b.token.lower()
        and a.vectors[""].shape[0] == b.vectors[""].shape[0]
        and a.vectors[""].shape[1] != b.vectors[""].shape[1]
    )


def bundled_words(path: str | Path) -> list[Embedding]:
    """The learned words that a LoRA's file holds beside its layers. Raises InputError."""
    file = find_adapter(path)
    words: dict[str, dict[str, Tensor]] = {}
    for key, tensor in Weights((file,)).read(_Bundled()):
        word, _, part = key.removeprefix(BUNDLE).partition(".")
        words.setdefault(word, {})[part if part in _PAIR.values() else "emb_params"] = tensor
    return [Embedding(str(path), word, _vectors(file, held)[1]) for word, held in words.items()]


class _Bundled:
    """The keys of words, as what `Weights.read` asks."""

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.startswith(BUNDLE)


def _vectors(file: Path, held: Any) -> tuple[str, dict[str, Tensor]]:
    """The word that the file names, and its vectors."""
    held, name = held if isinstance(held, Mapping) else {}, file.stem
    if isinstance(held.get("string_to_param"), Mapping):
        if isinstance(held.get("name"), str):
            name = held["name"]
        held = held["string_to_param"]
        if len(held) == 1:
            held = {"emb_params": next(iter(held.values()))}
    tensors = {_ALSO.get(str(k), str(k)): t for k, t in held.items() if isinstance(t, Tensor)}
    for key, tensor in tensors.items():
        check_plain(file, key, tensor)
    pair = set(_PAIR.values())
    if tensors.keys() == pair:
        vectors = tensors
    elif len(tensors) == 1:
        ((key, vector),) = tensors.items()
        vectors = {key if key in pair else "": vector}
        name = name if key in {"", "emb_params", *pair} else key
    else:
        kind = other_kind(tensors or flat(held))
        keys = kind or listed("tensors", sorted(tensors)) or "no tensors"
        raise InputError(f"{file} is no textual inversion: it holds {keys}")
    vectors = {
        k: t.detach().float().reshape(-1, t.shape[-1])
        for k, t in vectors.items()
        if t.ndim and t.numel()
    }
    counts = {len(t) for t in vectors.values()}
    if len(counts) != 1 or not all(t.isfinite().all() for t in vectors.values()):
        raise InputError(f"{file} is no textual inversion: its vectors make no sense")
    return name, vectors


def extended(
    embedding: Embedding, readers: Mapping[str, tuple[Tokenizer, TextEncoder]]
) -> dict[str, tuple[Tokenizer, TextEncoder]]:
    """The readers of a model, knowing one word more; the ones given stay as they are.

    readers: "text_encoder" and perhaps "text_encoder_2", each with its tokenizer.

    Raises InputError for vectors of another width, too many of them, and a word already taken.
    """
    new = {}
    for name, (tokenizer, encoder) in readers.items():
        width = encoder.config.hidden_size
        vectors = embedding.vectors.get("", embedding.vectors.get(_PAIR[name]))
        if len(readers) == 1:  # of a pair, the one that fits: SDXL's refiner has only the second
            fitting = [v for v in embedding.vectors.values() if v.shape[1] == width]
            vectors = fitting[0] if fitting else vectors
        if len(readers) == 2 and embedding.vectors.keys() == {""}:
            raise InputError(_one_half(embedding, readers))
        if vectors is None or vectors.shape[1] != width:
            has = ", ".join(str(v.shape[1]) for v in embedding.vectors.values())
            wanted = " and ".join(str(e.config.hidden_size) for _, e in readers.values())
            raise InputError(
                f"{embedding.name} has vectors of width {has}; the model's words have {wanted}"
            )
        new[name] = _extended(embedding, vectors, tokenizer, encoder)
    return new


def _one_half(embedding: Embedding, readers: Mapping[str, tuple[Tokenizer, TextEncoder]]) -> str:
    width = embedding.vectors[""].shape[1]
    widths = [encoder.config.hidden_size for _, encoder in readers.values()]
    if width not in widths:
        wanted = " and ".join(map(str, widths))
        return f"{embedding.name} has vectors of width {width}; the model's words have {wanted}"
    which = ("second", "first")[widths.index(width)]
    return (
        f"{embedding.name} teaches {embedding.token!r} to one of the model's two text encoders "
        f"(width {width}): the file for the {which} one is missing; give both"
    )


def _extended(
    embedding: Embedding, vectors: Tensor, tokenizer: Tokenizer, encoder: TextEncoder
) -> tuple[Tokenizer, TextEncoder]:
    word, room = embedding.token.lower(), tokenizer.length - 2
    if word in tokenizer.added:
        raise InputError(f"{embedding.name}: {embedding.token!r} is an embedding already")
    if len(vectors) > room:
        raise InputError(
            f"{embedding.name} has {len(vectors)} vectors; a prompt has room for {room}"
        )
    _, dtype = placement(encoder)
    encoder = twin(encoder)
    old = encoder.text_model.embeddings.token_embedding.weight
    rows = torch.cat([old.to(dtype), vectors.to(old.device, dtype)])
    layer = nn.Embedding.from_pretrained(rows, freeze=True)
    encoder.text_model.embeddings.token_embedding = layer
    # The largest id is no longer the end of the text, which is how an eos_token_id of 2 is read.
    end = tokenizer.end if encoder.config.eos_token_id == 2 else encoder.config.eos_token_id
    encoder.config = replace(encoder.config, vocab_size=len(rows), eos_token_id=end)
    ids = tuple(range(len(old), len(rows)))
    return replace(tokenizer, added={**tokenizer.added, word: ids}), encoder
