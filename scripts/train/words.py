"""The words: captions as people type them, the tokenizer made from them, the text encoder's start.

A trial's text encoder, trained with the UNet only, gave "left" and "right" the same output, since
x_t shows the layout at every t and the words get no gradient. So it first learns, in a minute,
to tell from a caption what the picture holds; only then the UNet listens to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from scripts.train.fit import Schedule, fit
from scripts.train.pictures import description
from scripts.train.world import (
    COLOURS,
    OBJECTS,
    PLACES,
    RELATIONS,
    SCENES,
    SIZES,
    Description,
    caption,
)
from sdcore.models import TextEncoder, TextEncoderConfig

START, END, LENGTH = "<|startoftext|>", "<|endoftext|>", 77
FILLING = 40  # how far into the filling after a caption its reader is asked
# CLIP's split of a text into words (Radford et al. 2021, published tokenizer).
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

SYNONYMS = {
    "by the sea": ("on the beach", "at the beach", "at the seaside"),
    "at sunset": ("in the evening", "at dusk"),
    "at night": ("at midnight", "in the night"),
    "in a meadow": ("on the grass", "in a green field", "in the sunshine"),
    "in the snow": ("in winter", "on a snowy day"),
    "in the desert": ("on the sand dunes", "in a desert"),
    "in the mountains": ("before the mountains",),
    "on the moon": ("in space", "in outer space"),
    "cat": ("kitten", "kitty"),
    "house": ("cottage", "home"),
    "boat": ("ship", "sailboat"),
    "balloon": ("hot air balloon",),
    "mushroom": ("toadstool",),
    "small": ("little",),
    "big": ("huge", "giant"),
}
FILLERS = (
    "a picture of",
    "a painting of",
    "a photo of",
    "a drawing of",
    "an illustration of",
    "a picture book page with",
    "a cartoon of",
)
ADJECTIVES = ("cute", "beautiful", "pretty", "lovely", "nice", "happy", "old", "bright", "magic")


def vary(text: str, rng: np.random.Generator) -> str:
    """A caption as somebody else would type it: synonyms, a filler in front, a stray word."""
    for word, others in SYNONYMS.items():
        if rng.random() < 0.12 and f" {word} " in f" {text} ".replace(",", " "):
            text = text.replace(word, others[rng.integers(len(others))])
    chance = rng.random()
    if chance < 0.08 and text.startswith("a "):
        text = f"{FILLERS[rng.integers(len(FILLERS))]} {text}"
    elif chance < 0.11:
        text = f"{text}, {ADJECTIVES[rng.integers(len(ADJECTIVES))]}"
    elif chance < 0.14:  # a word that means nothing here: to be passed over
        letters = rng.integers(97, 123, rng.integers(3, 9), dtype=np.uint8)
        text = f"{text}, {bytes(letters).decode()}"
    return text


def make_tokenizer(seed: int, captions: int) -> Tokenizer:
    """A byte-pair tokenizer of CLIP's form whose merges come from `captions` sample captions.

    Its alphabet holds every byte, so that any text can be written in it.
    """
    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = normalizer, splitter
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=3, end_of_word_suffix="</w>", show_progress=False
    )
    texts = [*FILLERS * 3, *ADJECTIVES * 3]
    for i in range(captions):
        rng = np.random.default_rng([seed, i, 2])
        text = vary(caption(description(seed, i), rng), rng)
        texts.append(text.rsplit(", ", 1)[0])  # the stray words shall not become merges
    learner.train_from_iterator(texts, trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(c + "</w>" for c in alphabet)]
    known = set(tokens)
    tokens += [a + b for a, b in merges if not (a + b in known or known.add(a + b))]
    vocabulary = {token: i for i, token in enumerate([*tokens, START, END])}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [tuple(m) for m in merges], unk_token=END, end_of_word_suffix="</w>")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens([START, END])
    ends = [(token, vocabulary[token]) for token in (END, START)]
    tokenizer.post_processor = processors.RobertaProcessing(
        *ends, trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files of a published tokenizer/ folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    config = {
        **special,
        "do_lower_case": True,
        "model_max_length": LENGTH,
        "tokenizer_class": "CLIPTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids [B, 77]: start, words, end, and ends to fill up."""
    end = tokenizer.token_to_id(END)
    rows = [e.ids[:LENGTH] for e in tokenizer.encode_batch(list(texts))]
    return torch.tensor([row + [end] * (LENGTH - len(row)) for row in rows])


def new_text_encoder(tokenizer: Tokenizer, width: int = 128, layers: int = 4) -> TextEncoder:
    encoder = TextEncoder(
        TextEncoderConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            max_position_embeddings=LENGTH,
            projection_dim=width,
            eos_token_id=tokenizer.token_to_id(END),
        )
    )
    # At CLIP's 0.02 the words drown in the residual stream of a network this small.
    nn.init.normal_(encoder.text_model.embeddings.token_embedding.weight, std=0.3)
    nn.init.normal_(encoder.text_model.embeddings.position_embedding.weight, std=0.1)
    return encoder


_QUESTIONS: dict[str, Sequence[str | None]] = {
    "scene": SCENES,
    "place": (*PLACES, None),
    "relation": (*RELATIONS, None),
    **{
        f"{what}{i}": (*words, None)
        for i in range(2)
        for what, words in (("object", OBJECTS), ("colour", COLOURS), ("size", SIZES))
    },
}


def answers(d: Description) -> list[int]:
    """The right answer to each of _QUESTIONS, as an index."""
    facts: dict[str, str | None] = {"scene": d.scene, "place": d.place, "relation": d.relation}
    for i in range(2):
        thing = d.things[i] if i < len(d.things) else None
        for what in ("object", "colour", "size"):
            facts[f"{what}{i}"] = getattr(thing, what) if thing is not None else None
    return [words.index(facts[name]) for name, words in _QUESTIONS.items()]


class Reader(nn.Module):
    """A text encoder with a linear question for everything that a caption tells."""

    def __init__(self, encoder: TextEncoder):
        super().__init__()
        self.encoder = encoder
        width = encoder.config.hidden_size
        self.questions = nn.ModuleList(nn.Linear(width, len(w)) for w in _QUESTIONS.values())

    def forward(self, last: Tensor, where: Tensor) -> list[Tensor]:
        """Logits from the encoder's outputs [B, 77, width], at position `where` [B]."""
        at = last.gather(1, where[:, None, None].expand(-1, 1, last.shape[2]))[:, 0]
        return [question(at) for question in self.questions]

    def exam(
        self, ids: Tensor, last: Tensor, shown: Sequence[Description], rng: np.random.Generator
    ) -> tuple[Tensor, float]:
        """Cross entropy of all questions about the pictures `shown`, and the share right."""
        target = torch.tensor([answers(d) for d in shown]).to(last.device)
        later = torch.from_numpy(rng.integers(0, FILLING, len(ids))).to(last.device)
        losses, right = self.grade(ids.to(last.device), last, target, later)
        return losses.mean(), right.mean().item()

    def grade(
        self, ids: Tensor, last: Tensor, target: Tensor, later: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of each caption the cross entropy, summed over the questions, and the share right, [B].

        Asked at the end of each caption and `later` places after it, in the filling, so that the
        UNet can hear everything at either. target: the right answers [B, questions].
        """
        ends = (ids == self.encoder.config.eos_token_id).int().argmax(dim=1)
        losses, right = [], []
        for where in (ends, (ends + later).clamp(max=LENGTH - 1)):
            for i, each in enumerate(self(last, where)):
                losses.append(F.cross_entropy(each.float(), target[:, i], reduction="none"))
                right.append(each.argmax(1) == target[:, i])
        return torch.stack(losses).sum(0) / 2, torch.stack(right).float().mean(0)


def pretrain(
    encoder: TextEncoder, tokenizer: Tokenizer, schedule: Schedule, seed: int, checkpoint: Path
) -> None:
    """Teach `encoder`, in place, to tell captions apart: order, place, colour, everything."""
    device = next(encoder.parameters()).device
    reader = Reader(encoder).to(device)

    def loss(step: int) -> tuple[Tensor, str]:
        rng = np.random.default_rng([seed, step, 3])
        shown = [description(seed, int(i)) for i in rng.integers(0, 2**31, 64)]
        ids = encode(tokenizer, [vary(caption(d, rng), rng) for d in shown])
        value, right = reader.exam(ids, encoder(ids.to(device)).last, shown, rng)
        return value, f"{right:.3f} right"

    fit(reader, loss, schedule, checkpoint)


@torch.no_grad()
def distance(encoder: TextEncoder, tokenizer: Tokenizer, a: str, b: str) -> float:
    """Relative L2 distance of what the UNet hears of two prompts."""
    x, y = encoder(encode(tokenizer, [a, b]).to(next(encoder.parameters()).device)).last
    return ((x - y).norm() / x.norm()).item()
