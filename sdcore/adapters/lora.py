"""An adapter file, laid against the networks that it is for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sdcore.adapters.deltas import Parts, check_parts, scaled
from sdcore.adapters.files import find_adapter, read_notes, read_tensors
from sdcore.adapters.names import Place, places, split_key
from sdcore.checkpoints.kinds import other_kind
from sdcore.errors import InputError, listed
from sdcore.strengths import written_lora

BUNDLE = "bundle_emb."  # how the keys of learned words begin, bundle_emb.WORD.clip_l
REFUSED = ("an OFT adapter", "a BOFT adapter", "an IA3 adapter")


@dataclass(frozen=True)
class LoRA:
    """One adapter and how strongly it acts."""

    name: str  # the path, as the user gave it
    layers: Mapping[Place, Parts]
    unet: float = 1.0
    text: float = 1.0  # of every text encoder
    merged: bool = True  # into the weights; else it runs beside the layers
    unmatched: tuple[str, ...] = ()  # keys of the file that no layer answers to
    words: tuple[str, ...] = ()  # learned words that the file also holds

    def strength(self, component: str) -> float:
        return self.unet if component == "unet" else self.text

    @property
    def spec(self) -> str:
        """As `parse_lora` reads it, the strengths to the last digit."""
        return written_lora(self.name, self.unet, self.text)


def open_lora(
    path: str | Path,
    components: Mapping[str, nn.Module],
    unet: float = 1.0,
    text: float = 1.0,
    merged: bool = True,
) -> LoRA:
    """Read an adapter and find the layer that each of its tensors is for.

    Args:
        components: "unet", "text_encoder", "text_encoder_2" and their modules.
        unet, text: strengths; any finite number.
        merged: whether it will be added to the weights, or run beside the layers.

    Raises:
        InputError: no such file, one that needs code to be run, one of no known kind, one for
            other networks; what fits in part is taken, and the rest listed in `unmatched`.
    """
    if not math.isfinite(unet) or not math.isfinite(text):
        raise InputError(f"the strength of {path} must be a finite number")
    file = find_adapter(path)
    table = places(components)
    layers: dict[Place, dict[str, Tensor]] = {}
    unmatched = []
    tensors = read_tensors(file)
    kind = other_kind(tensors)
    if kind in REFUSED:
        raise InputError(
            f"{file} holds {kind}, which does not act here: LoRA, LoHa, LoKr, GLoRA do"
        )
    words = {key.split(".")[1] for key in tensors if key.startswith(BUNDLE)}
    for key, tensor in tensors.items():
        if key.startswith(BUNDLE):
            continue
        where = split_key(key)
        place = None if where is None else table.get(where[0])
        if where is None or place is None:
            unmatched.append(key)
        else:
            layers.setdefault(place, {})[where[1]] = tensor
    if not layers:
        if not any(map(split_key, unmatched)):
            held = kind or listed("tensors", unmatched, most=2) or "nothing"
            raise InputError(f"{file} is no adapter: it holds {held}")
        raise InputError(f"{file} fits no layer of this model: {listed('keys', unmatched, most=2)}")
    try:
        notes = read_notes(file)
        scales = {place: noted_scale(notes, place) for place in layers} if notes else {}
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    for place, parts in layers.items():
        if (scale := scales.get(place)) is not None and "alpha" not in parts:
            parts.update(scaled(parts, scale))
        try:
            check_parts(parts)
        except InputError as error:
            raise InputError(f"{file}, {'.'.join(place)}: {error}") from None
    return LoRA(str(path), layers, unet, text, merged, tuple(unmatched), tuple(sorted(words)))


def unmatched_warning(lora: LoRA) -> str | None:
    """The line that lists what of an adapter was left out; None when nothing was."""
    left = listed("keys fit no layer of this model and were left out", lora.unmatched)
    return f"{lora.name}: {left}" if left else None


def noted_scale(notes: Mapping[str, Any], place: Place) -> float | None:
    """alpha/r as PEFT's configuration has it for a layer, alpha/sqrt(r) with rsLoRA; else None.

    Raises InputError for a configuration that makes no sense.
    """
    component, name = place
    head = f"{component}."
    own = {k.removeprefix(head): v for k, v in notes.items() if k.startswith(head)} or notes
    alpha = _noted(own, "alpha_pattern", name, own.get("lora_alpha", own.get("alpha")))
    rank = _noted(own, "rank_pattern", name, own.get("r"))
    if alpha is None or rank is None or rank < 1:
        return None
    return alpha / math.sqrt(rank) if own.get("use_rslora") else alpha / rank


def _noted(notes: Mapping[str, Any], field: str, name: str, usual: Any) -> float | None:
    """The number that the patterns of a field have for a layer, or the usual one."""
    patterns = notes.get(field)
    if not isinstance(patterns, dict | None):
        raise InputError(f"the adapter's {field} is no object")
    fitting = (v for pattern, v in (patterns or {}).items() if names_layer(pattern, name, field))
    number = next(fitting, usual)
    if number is None:
        return None
    if type(number) not in (int, float) or not math.isfinite(number):
        raise InputError(f"the adapter's configuration has {number!r} where a number belongs")
    return number


def names_layer(pattern: str, name: str, field: str) -> bool:
    """Whether PEFT's pattern names a layer: its whole name, or what follows on a point in it.

    Theirs are regular expressions, of which a stranger's may take for ever. Here `.` is a point,
    `.*` stands for anything, `^` for the beginning; another sign of theirs is an InputError.
    """
    plain = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"(?:[\w.-]|\.\*)*", plain):
        raise InputError(
            f"the adapter's {field} has {pattern!r}: of regular expressions only names, ^, $ and "
            ".* are read"
        )
    glob = plain.replace(".*", "*")
    return fnmatchcase(name, glob) or (
        not pattern.startswith("^") and fnmatchcase(name, f"*.{glob}")
    )
