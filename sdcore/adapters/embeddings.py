"""Textual inversion (Gal et al. 2022, arXiv 2208.01618): learned words, each one vector or several.

diffusers   {"<token>": [n, D] or [D]}, .safetensors or .bin
A1111       .pt with "string_to_param" {"*": [n, D]} and "name"; .safetensors {"emb_params"}
SDXL        {"clip_l": [n, 768], "clip_g": [n, 1280]}, one for each text encoder
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdcore.adapters.apply import twin
from sdcore.checkpoints.pickled import check_plain, is_pickled, load_pickle
from sdcore.checkpoints.read import Weights
from sdcore.errors import InputError, listed
from sdcore.models import TextEncoder
from sdcore.models.layers import placement
from sdcore.paths import path_of
from sdcore.prompts import Tokenizer

_PAIR = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


@dataclass(frozen=True)
class Embedding:
    """A learned word."""

    name: str  # the path, as the user gave it
    token: str  # how it is written in a prompt, in any case
    vectors: Mapping[str, Tensor]  # [n, D]: by "clip_l" and "clip_g", or one under ""

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
    """Read a textual inversion.

    token: how it will be written in a prompt; None: as the file says, or else its name.

    Raises InputError: no such file, one of no known form, one that needs code to be run.
    """
    file = path_of(path)
    if not file.is_file():
        raise InputError(f"no embedding at {path}: there is no such file")
    held: Any = load_pickle(file) if is_pickled(file) else dict(Weights((file,)))
    own, vectors = _vectors(file, held)
    word = (own if token is None else token).strip()
    if not word:
        raise InputError(f"{path}: the word of an embedding is empty")
    return Embedding(str(path), word, vectors)


def _vectors(file: Path, held: Any) -> tuple[str, dict[str, Tensor]]:
    """The word that the file names, and its vectors."""
    held, name = held if isinstance(held, Mapping) else {}, file.stem
    if isinstance(held.get("string_to_param"), Mapping):
        if isinstance(held.get("name"), str):
            name = held["name"]
        held = held["string_to_param"]
        if len(held) == 1:
            held = {"emb_params": next(iter(held.values()))}
    found = {str(k): t for k, t in held.items() if isinstance(t, Tensor)}
    for key, tensor in found.items():
        check_plain(file, key, tensor)
    pair = set(_PAIR.values())
    if found.keys() == pair:
        vectors = found
    elif len(found) == 1:
        ((key, vector),) = found.items()
        vectors = {key if key in pair else "": vector}
        name = name if key in {"emb_params", *pair} else key
    else:
        keys = listed("tensors", sorted(found)) or "no tensors"
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
        if vectors is None or vectors.shape[1] != width:
            has = ", ".join(str(v.shape[1]) for v in embedding.vectors.values())
            wanted = " and ".join(str(e.config.hidden_size) for _, e in readers.values())
            raise InputError(
                f"{embedding.name} has vectors of width {has}; the model's words have {wanted}"
            )
        new[name] = _extended(embedding, vectors, tokenizer, encoder)
    return new


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
