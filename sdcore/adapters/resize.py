"""A LoRA of another rank: every layer's product cut to its largest singular values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdcore.adapters.deltas import LOW_RANK, Parts, check_parts, factor
from sdcore.adapters.files import find_adapter, read_notes, read_tensors
from sdcore.adapters.lora import noted_scale
from sdcore.adapters.low_rank import fewer, product_norm
from sdcore.adapters.names import Place, split_key
from sdcore.adapters.write import peft_config
from sdcore.checkpoints.read import read_metadata
from sdcore.errors import InputError

PEFT = "lora_adapter_metadata"  # of the header
HASHES = ("sshs_model_hash", "sshs_legacy_hash")  # of the tensors
ARGS = "ss_network_args"  # kohya's further ranks and alphas, as JSON
RANKS = {"conv_dim": "conv_alpha", "block_dims": "block_alphas",
         "conv_block_dims": "conv_block_alphas"}  # fmt: skip
COMPONENTS = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Resized:
    """tensors, metadata: of the file. error: what is lost, as a share of the whole change."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    layers: int  # how many layers have a LoRA
    others: int  # how many have something else, which stays what it is
    error: float


def resize(path: str | Path, rank: int) -> Resized:
    """The adapter at `path` with no layer of more than this rank, every key spelled as it was.

    alpha / r stays what it was, so that the file acts as before; what acts as a LoRA inside of a
    DoRA is resized, and its magnitudes are kept. What the file says of itself is kept, but for rank
    and alpha. A larger rank than a layer has leaves it as it is.

    Raises InputError for a file that is no adapter, holds no LoRA, or one that is garbled.
    """
    file = find_adapter(path)
    tensors, peft = read_tensors(file), read_notes(file)
    layers: dict[str, dict[str, str]] = {}  # layer, as the file spells it -> part -> key
    for key in tensors:
        if (split := split_key(key)) is not None:
            layers.setdefault(split[0], {})[split[1]] = key
    low = {name: keys for name, keys in layers.items() if keys.keys() >= LOW_RANK}
    if not low:
        raise InputError(f"{file} holds no LoRA that could be resized")
    resized: dict[str, dict[str, Tensor]] = {}
    whole = lost = 0.0
    for name, keys in low.items():
        parts = {part: tensors[key] for part, key in keys.items()}
        _check(parts, f"{file}, {name}")
        scale = _scale(parts, peft, _place(name))
        resized[name] = _shorter(parts, scale, rank)
        before, error = _sizes(parts, scale, resized[name])
        whole, lost = whole + before**2, lost + error**2
        for part, key in keys.items():
            if part in resized[name]:
                tensors[key] = resized[name][part].to(tensors[key].dtype).contiguous()
            else:
                del tensors[key]
    metadata = _metadata(read_metadata(file), resized, rank)
    error = (lost / whole) ** 0.5 if whole else 0.0
    return Resized(tensors, metadata, len(low), len(layers) - len(low), error)


def _check(parts: Parts, where: str) -> None:
    try:
        check_parts(parts)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    for name, part in parts.items():
        if name != "alpha" and not part.is_floating_point():
            raise InputError(f"{where}: its {name} is {part.dtype}, which holds no fractions")


def _place(name: str) -> Place:
    """The layer that PEFT's notes mean; kohya's names are none of theirs."""
    component, _, rest = name.partition(".")
    return (component, rest) if component in COMPONENTS else ("unet", name)


def _scale(parts: Parts, peft: Mapping[str, Any], place: Place) -> float:
    """alpha / r, by the file's own alpha or by PEFT's notes."""
    noted = noted_scale(peft, place) if peft and "alpha" not in parts else None
    return factor(parts) if noted is None else noted


def _shorter(parts: Parts, scale: float, rank: int) -> dict[str, Tensor]:
    """The parts at this rank at most; the scale is in alpha, or in `up` where there is none."""
    new = dict(parts)
    if rank < len(parts["down"]):
        down, up = pair(parts)
        short_down, short_up = fewer(down.flatten(1), up.flatten(1), rank)
        ones = (1,) * (up.ndim - 2)
        new |= {"down": short_down.view(-1, *down.shape[1:]), "up": short_up.view(-1, rank, *ones)}
        new.pop("mid", None)
    if "alpha" in parts:
        return new | {"alpha": torch.tensor(scale * len(new["down"]))}
    return new | {"up": new["up"].float() * scale}


def pair(parts: Parts) -> tuple[Tensor, Tensor]:
    """down [r, in, k, k] and up [out, r, 1, 1], a core between them taken into `down`."""
    down, up = parts["down"].float(), parts["up"].float()
    if "mid" in parts:
        down = torch.einsum("abkl,bi->aikl", parts["mid"].float(), down.flatten(1))
    return down, up


def _sizes(parts: Parts, scale: float, new: Parts) -> tuple[float, float]:
    """|dW| of the layer before, and how far the new one is from it."""
    (down, up), (new_down, new_up) = pair(parts), pair(new)
    up, new_up = scale * up.flatten(1), factor(new) * new_up.flatten(1)
    down, new_down = down.flatten(1), new_down.flatten(1)
    apart = product_norm(torch.cat([down, new_down]), torch.cat([up, -new_up], dim=1))
    return product_norm(down, up), apart


def _metadata(old: Mapping[str, str], layers: Mapping[str, Parts], rank: int) -> dict[str, str]:
    """What the file says of itself, with the new ranks; hashes of its tensors are true no more."""
    new = {name: text for name, text in old.items() if name not in HASHES}
    if "ss_network_dim" in new:
        new["ss_network_dim"] = str(max(len(parts["down"]) for parts in layers.values()))
        alphas = [float(parts["alpha"]) for parts in layers.values() if "alpha" in parts]
        new["ss_network_alpha"] = str(max(alphas, default=float(new["ss_network_dim"])))
    if ARGS in new:
        new[ARGS] = _arguments(new[ARGS], rank)
    if PEFT in new:
        by_place: dict[Place, Parts] = {}
        for name, parts in layers.items():
            dora = {"dora_scale": parts["magnitude"]} if "magnitude" in parts else {}
            by_place[_place(name)] = {**parts, **dora}
        config = json.loads(new[PEFT]) | peft_config(by_place)
        new[PEFT] = json.dumps({k: v for k, v in config.items() if not k.endswith("use_rslora")})
    return new


def _arguments(text: str, rank: int) -> str:
    """`ss_network_args` with no rank above `rank`, and alphas that leave alpha / r as it was.

    Numbers, or several with commas between them, a block each. What cannot be read stays.
    """
    try:
        args = json.loads(text)
        for dims, alphas in RANKS.items():
            if args.get(dims) is None:
                continue
            old = [int(each) for each in str(args[dims]).split(",")]
            new = [min(each, rank) for each in old]
            args[dims] = ",".join(map(str, new))
            if args.get(alphas) is not None:
                scaled = [float(a) * n / o if o else float(a) for a, n, o in
                          zip(str(args[alphas]).split(","), new, old, strict=True)]  # fmt: skip
                args[alphas] = ",".join(map(str, scaled))
    except (ValueError, AttributeError):
        return text
    return json.dumps(args)
