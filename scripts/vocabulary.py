"""A CLIP tokenizer of a few words, for random models."""

import json
from pathlib import Path

WORDS = ["red", "blue", "house", "boat"]


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes that byte-level BPE works on (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + n) for n in range(len(rest))]


def write_tokenizer(folder: Path, pad_token: str = "<|endoftext|>") -> int:
    """A CLIP-format tokenizer whose vocabulary is bytes and a few words; returns its size."""
    from transformers import CLIPTokenizer

    merges: list[tuple[str, str]] = []
    for word in WORDS:
        left = word[0]
        for i, letter in enumerate(word[1:], start=2):
            right = letter + "</w>" if i == len(word) else letter
            if (left, right) not in merges:
                merges.append((left, right))
            left += right
    symbols = byte_symbols()
    names = symbols + [s + "</w>" for s in symbols] + ["".join(m) for m in merges]
    vocab = {s: i for i, s in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True)
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special["pad_token"] = pad_token
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return len(vocab)
