"""Textual inversion (Gal et al. 2022, arXiv 2208.01618): a new word's vectors are all that learns.

The vocabulary's own rows are no parameters here at all: no decay and no momentum can move them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from sdcore.adapters import Embedding, extended, with_embedding
from sdcore.errors import InputError
from sdcore.networks import Networks, Reader
from sdcore.prompts.tokens import words_in_text
from sdcore.training.folder import Example
from sdcore.training.optimizer import Group
from sdcore.training.plan import Plan
from sdcore.writing import write_whole

TEMPLATES = ("a picture of {}", "a rendering of {}", "{}", "a cropped picture of {}",
             "a bright picture of {}", "a close-up picture of {}")  # fmt: skip
_PAIR = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


class Rows(nn.Module):
    """An embedding: the vocabulary's rows [V,D], and below them n trained ones, in float32."""

    table: Tensor

    def __init__(self, table: Tensor, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.rows = nn.Parameter(rows.float())

    @property
    def weight(self) -> Tensor:
        return torch.cat([self.table, self.rows.to(self.table)])

    def forward(self, ids: Tensor) -> Tensor:
        count = len(self.table)
        old = F.embedding(ids.clamp(max=count - 1), self.table)
        new = F.embedding((ids - count).clamp(min=0), self.rows)
        return torch.where((ids >= count)[..., None], new.to(old.dtype), old)


class WordTraining:
    """What `--method embedding` trains."""

    def __init__(self, networks: Networks, plan: Plan) -> None:
        """Raises InputError for a word that is taken, or a beginning that says nothing."""
        self.base, self.plan = networks, plan
        assert plan.word is not None
        encoders = {reader.name: reader for reader in networks.readers}
        names = {n: _PAIR[n] if len(encoders) > 1 else "" for n in encoders}
        first = {names[n]: _beginning(reader, plan) for n, reader in encoders.items()}
        word = Embedding("--word", plan.word, first)
        pairs = {n: (r.tokenizer, r.encoder) for n, r in encoders.items()}
        readers, self.rows = [], {}
        for name, (tokenizer, encoder) in extended(word, pairs).items():
            table = encoders[name].encoder.text_model.embeddings.token_embedding.weight
            self.rows[names[name]] = Rows(table.detach(), first[names[name]].to(table.device))
            encoder.text_model.embeddings.token_embedding = self.rows[names[name]]  # type: ignore
            readers.append(Reader(name, tokenizer, encoder))
        self.networks = replace(networks, readers=tuple(readers))

    @property
    def groups(self) -> list[Group]:
        parameters = tuple(rows.rows for rows in self.rows.values())
        return [Group("word", parameters, self.plan.rate, decays=False)]

    def write(self, path: Path, notes: Mapping[str, str]) -> Path:
        """The vectors, as A1111 and ComfyUI (kohya), or as diffusers has them by the word."""
        path = path.with_name(f"{path.name}.safetensors")
        vectors = {name: rows.rows.detach().cpu() for name, rows in self.rows.items()}
        if len(vectors) == 1:
            name = self.plan.word if self.plan.layout == "diffusers" else "emb_params"
            vectors = {str(name): next(iter(vectors.values()))}
        stored = {k: v.to(getattr(torch, self.plan.save_dtype)).contiguous().clone()
                  for k, v in vectors.items()}  # fmt: skip
        write_whole(path, save(stored, {"format": "pt", **notes}))
        return path

    def drawing(self, path: Path) -> Networks:
        return with_embedding(self.base, path, self.plan.word)


def _beginning(reader: Reader, plan: Plan) -> Tensor:
    """The first vectors [n,D]: of the tokens of a text, over and over; else the mean of all."""
    table = reader.encoder.text_model.embeddings.token_embedding.weight.detach().float()
    if plan.init is None:
        return table.mean(dim=0).repeat(plan.vectors, 1)
    ids = [i for unit in reader.tokenizer.units(plan.init) for i in unit.ids]
    if not ids:
        raise InputError(f"--init {plan.init!r} has no token to begin from")
    return table[[ids[i % len(ids)] for i in range(plan.vectors)]]


def with_word(examples: list[Example], word: str) -> tuple[list[Example], int]:
    """Examples whose captions all hold the word, and to how many of them it was added in front."""
    new, added, there = [], 0, words_in_text([word])
    for example in examples:
        said = tuple(c if there.search(c) else f"{word}, {c}" for c in example.captions)
        added += said != example.captions
        new.append(Example(example.path, said, example.repeats))
    return new, added


def templates(word: str) -> tuple[str, ...]:
    """What is said of pictures without a caption."""
    return tuple(text.format(word) for text in TEMPLATES)
