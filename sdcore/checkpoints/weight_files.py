"""Which of a component's files are read: decided from names alone, here or on the hub."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sdcore.checkpoints.read import read_json
from sdcore.errors import InputError

INDEX, CONFIG = "model_index.json", "config.json"
TOKENIZER_FILES: tuple[str, ...] = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_NETWORK = {"safetensors": "diffusion_pytorch_model", "bin": "diffusion_pytorch_model"}
_ENCODER = {"safetensors": "model", "bin": "pytorch_model"}


def weights_name(component: str, names: Collection[str], variant: str | None = None) -> str | None:
    """The file with a component's weights among `names`, or the index of its shards.

    Safetensors come before pickled weights, one file before shards, and without a `variant` the
    plain weights before the float16 ones: the most exact there are. Components that do not come in
    the variant are read without it. None where there is nothing.

    >>> weights_name("unet", ["config.json", "diffusion_pytorch_model.fp16.safetensors"])
    'diffusion_pytorch_model.fp16.safetensors'
    """
    present = [] if variant is None else _of_variant(component, names, f".{variant}")
    present += _of_variant(component, names, "") + _of_variant(component, names, ".fp16")
    return present[0] if present else None


def has_variant(component: str, names: Collection[str], variant: str) -> bool:
    """Whether a component comes in the form `variant`."""
    return bool(_of_variant(component, names, f".{variant}"))


def _of_variant(component: str, names: Collection[str], middle: str) -> list[str]:
    stems = _ENCODER if component.startswith("text_encoder") else _NETWORK
    spelt = [
        name
        for suffix, stem in stems.items()
        for name in (
            f"{stem}{middle}.{suffix}",
            f"{stem}.{suffix}.index{middle}.json",
            f"{stem}{middle}.{suffix}.index.json",
        )
    ]
    return [name for name in dict.fromkeys(spelt) if name in names]


def shards(index: Path) -> tuple[str, ...]:
    """The files that an index of shards names. Raises InputError where it names none."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index} has no weight_map")
    names = dict.fromkeys(map(str, weight_map.values()))
    for name in names:
        if Path(name).name != name or name in ("", "..") or "\0" in name:
            raise InputError(f"{index} names {name!r}, which is not beside it")
    return tuple(sorted(names))
