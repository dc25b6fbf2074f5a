"""From options by name to what draws: the networks, what lies over them, the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

AUTO = "auto"  # of --dtype: what suits the device

if TYPE_CHECKING:
    from sdcore.networks import Networks
    from sdcore.request import Request


def base_of(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What `load` is to be asked for. chosen: options by name."""
    from sdcore.picture_options import Source

    given = {each.name: chosen.get(each.name) for each in fields(Source)}
    return {name: value for name, value in given.items() if value not in (None, AUTO)}


def overlaid(
    networks: Networks, chosen: Mapping[str, Any], tell: Callable[[str], None]
) -> Networks:
    """The model with the adapters of `--lora FILE[:STRENGTH]` and the words of
    `--embedding FILE[:WORD]`. Raises InputError. tell: gets a line where memory ran out."""
    from sdcore.enduring import within_memory

    return within_memory(lambda n: _overlaid(n, chosen), networks, tell, "the adapters")


def _overlaid(networks: Networks, chosen: Mapping[str, Any]) -> Networks:
    from sdcore.adapters import joined, open_embedding, parse_embedding, with_embedding, with_lora
    from sdcore.strengths import parse_lora

    words = [open_embedding(*parse_embedding(spec)) for spec in chosen["embeddings"]]
    for word in joined(words):
        networks = with_embedding(networks, word)
    for spec in chosen["loras"]:
        path, unet, text = parse_lora(spec)
        networks = with_lora(networks, path, unet=unet, text=text)
    # A command takes nothing away again: the weights without adapters need not be kept.
    return replace(networks, untouched={})


def request_of(chosen: Mapping[str, Any], **words: Any) -> Request:
    """The request of these options. words: prompts, seeds."""
    from sdcore.loading import load
    from sdcore.picture_options import Options
    from sdcore.request import Request

    options = {f.name: chosen[f.name] for f in fields(Options) if chosen.get(f.name) is not None}
    if "refiner" in options:
        source = base_of(chosen)
        how = {name: source.get(name) for name in ("device", "dtype", "memory", "engine")}
        options["refiner"] = load(options["refiner"], **how)
    return Request(negative=chosen.get("negative"), **words, **options)
