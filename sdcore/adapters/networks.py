"""Adapters and learned words over a model's networks, as functions from networks to networks.

Nothing is changed in place: what comes back shares every weight that is not touched, and
`without_loras` gives the networks of before, bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

from torch import nn

from sdcore.adapters.apply import adapted, twin
from sdcore.adapters.embeddings import Embedding, bundled_words, extended, open_embedding
from sdcore.adapters.files import find_adapter, find_embedding
from sdcore.adapters.lora import LoRA, open_lora, unmatched_warning
from sdcore.fingerprint import fingerprint
from sdcore.memory import MODES, apply
from sdcore.models.layers import placement
from sdcore.networks import Networks, Reader

N = TypeVar("N", bound=Networks)


def with_lora(
    networks: N,
    path: str | Path,
    strength: float = 1.0,
    *,
    unet: float | None = None,
    text: float | None = None,
    merged: bool = True,
) -> N:
    """These networks with one adapter more acting on them: `StableDiffusion.with_lora`."""
    unet, text = (strength if given is None else given for given in (unet, text))
    adapter = open_lora(path, _adaptable(networks), unet, text, merged)
    for word in bundled_words(path) if adapter.words else ():
        networks = _taught(networks, word)  # it comes with the adapter: no --embedding to note
    new = _with_loras(networks, (*_loras(networks), adapter))
    return replace(new, digests={**networks.digests, str(path): fingerprint([find_adapter(path)])})


def without_loras(networks: N) -> N:
    """These networks as they were before any adapter, bit for bit, but for words that one holds."""
    names = {adapter.name for adapter in _loras(networks)}
    digests = {name: digest for name, digest in networks.digests.items() if name not in names}
    return replace(_with_loras(networks, ()), digests=digests)


def with_embedding(networks: N, path: str | Path | Embedding, token: str | None = None) -> N:
    """These networks knowing one word more: `StableDiffusion.with_embedding`."""
    word = path if isinstance(path, Embedding) else open_embedding(path, token)
    words = [word] if word.second is None else [word, replace(word, name=word.second)]
    digests = {each.name: fingerprint(_files(each.name)) for each in words}
    return replace(
        _taught(networks, word),
        embeddings=(*networks.embeddings, *words),
        digests={**networks.digests, **digests},
    )


def _files(name: str) -> list[Path]:
    """The file of this name, or those of a folder."""
    path = find_embedding(name)
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    return [each for each in inside if each.is_file()]


def _taught(networks: N, word: Embedding) -> N:
    bare = _bare(networks)
    pairs = {reader.name: (reader.tokenizer, reader.encoder) for reader in bare.readers}
    readers = tuple(Reader(name, *pair) for name, pair in extended(word, pairs).items())
    new = replace(bare, readers=readers)
    return _with_loras(_apart(new, new), _loras(networks))


def unmatched_warnings(networks: Networks) -> tuple[str, ...]:
    """One line for each adapter of which something was left out."""
    return tuple(filter(None, map(unmatched_warning, _loras(networks))))


def _loras(networks: Networks) -> tuple[LoRA, ...]:
    return cast("tuple[LoRA, ...]", networks.loras)


def _bare(networks: N) -> N:
    """These networks without adapters."""
    return replace(networks.with_modules(networks.untouched), loras=(), untouched={})


def _adaptable(networks: Networks) -> dict[str, nn.Module]:
    """The networks that adapters may act on, without those that do."""
    return {name: module for name, module in _bare(networks).modules.items() if name != "vae"}


def _with_loras(networks: N, loras: tuple[LoRA, ...]) -> N:
    """These networks with just these adapters acting on them."""
    bare = _bare(networks)
    if not loras:
        return bare
    modules = _adaptable(networks)
    new = bare.with_modules({name: adapted(name, m, loras) for name, m in modules.items()})
    new = _apart(new, bare)
    changed = {name: m for name, m in bare.modules.items() if new.modules[name] is not m}
    return replace(new, loras=loras, untouched=changed)


def _apart(networks: N, old: Networks) -> N:
    """These networks, in their mode of memory, and not made ready in turns with the `old` ones.

    Networks that are made ready in turns know each other; these are to know themselves alone.
    """
    if MODES[networks.memory].ready == "all":
        return networks
    new = {
        name: twin(module) if old.modules[name] is module else module
        for name, module in networks.modules.items()
    }
    apply(new, networks.memory, networks.device, {n: placement(m)[1] for n, m in new.items()})
    return networks.with_modules(new)
