"""A LoRA as a file, in one of the two layouts that other tools read.

kohya      lora_unet_..., lora_te_...: lora_down, lora_up, alpha, dora_scale
diffusers  unet...., text_encoder....: lora_A, lora_B, lora_magnitude_vector; rank and alpha as
           PEFT's configuration in the header, without which alpha would be taken for the rank
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sdcore.adapters.deltas import LOW_RANK, Parts
from sdcore.adapters.names import Place, kohya_names
from sdcore.errors import InputError, unknown
from sdcore.writing import write_whole

LAYOUTS = ("kohya", "diffusers")
_KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}
_PEFT = {
    "down": "lora_A.weight",
    "up": "lora_B.weight",
    "dora_scale": "lora_magnitude_vector.weight",
}


def write_lora(
    path: Path,
    layers: Mapping[Place, Parts],
    components: Mapping[str, nn.Module],
    layout: str = "kohya",
    notes: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a LoRA in place of what is there, whole or not at all.

    Args:
        layers: what it adds to each layer, as `deltas.change` takes it: down, up, alpha, perhaps
            mid and dora_scale.
        components: the networks that it is for, by name: their layers decide how kohya spells them.
        notes: texts for the file's header.
        dtype: of the factors; alpha stays float32.

    Raises:
        InputError: an unknown layout; a layer of another kind than LoRA, or with a core, which
            diffusers' layout has no place for; numbers that are not finite, or too large for the
            dtype; a file that cannot be written.
    """
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    for place, parts in layers.items():
        others = parts.keys() - {*LOW_RANK, "alpha", "dora_scale", "mid"}
        if not LOW_RANK.issubset(parts) or others:
            raise InputError(f"{'.'.join(place)} is no LoRA: {', '.join(sorted(parts))}")
    tensors = _kohya(layers, components) if layout == "kohya" else _diffusers(layers)
    header = {"format": "pt", **({} if notes is None else notes)}
    if layout == "diffusers":
        header["lora_adapter_metadata"] = json.dumps(peft_config(layers), sort_keys=True)
    stored = {  # copies: a file holds no tensor under two names
        key: t.detach().to("cpu", torch.float32 if key.endswith(".alpha") else dtype, copy=True)
        for key, t in tensors.items()
    }
    for key, tensor in stored.items():
        if not tensor.isfinite().all():
            raise InputError(
                f"{path} is not written: {key} holds what is no number, or none of {dtype}"
            )
    stored = {key: tensor.contiguous() for key, tensor in stored.items()}
    write_whole(path, save(stored, header))


def _kohya(layers: Mapping[Place, Parts], components: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    names, tensors = kohya_names(components), {}
    for place, parts in layers.items():
        alpha = parts.get("alpha", torch.tensor(float(_rank(parts))))
        for part, tensor in {**parts, "alpha": alpha}.items():
            tensors[f"{names[place]}.{_KOHYA.get(part, part)}"] = tensor
    return tensors


def _diffusers(layers: Mapping[Place, Parts]) -> dict[str, Tensor]:
    tensors = {}
    for (component, name), parts in layers.items():
        if "mid" in parts:
            raise InputError(f"{component}.{name} has a core between: write --layout kohya")
        for part, tensor in parts.items():
            if (
                part == "dora_scale"
            ):  # [out, 1 ...]; theirs is [out], of a convolution [1, out, 1, 1]
                spread = (1, -1, 1, 1) if parts["down"].ndim == 4 else (-1,)
                tensor = tensor.reshape(spread)
            if part in _PEFT:
                tensors[f"{component}.{name}.{_PEFT[part]}"] = tensor
    return tensors


def peft_config(layers: Mapping[Place, Parts]) -> dict[str, object]:
    """PEFT's fields for each network: the usual rank and alpha, and the layers that have others."""
    config: dict[str, object] = {}
    for component in dict.fromkeys(component for component, _ in layers):
        # PEFT looks for the end of a name, and newer transformers have dropped this beginning.
        own = {
            name.removeprefix("text_model."): parts
            for (where, name), parts in layers.items()
            if where == component
        }
        ranks = {name: _rank(parts) for name, parts in own.items()}
        alphas = {name: float(parts.get("alpha", ranks[name])) for name, parts in own.items()}
        rank, alpha = (Counter(each.values()).most_common(1)[0][0] for each in (ranks, alphas))
        config |= {
            f"{component}.r": rank,
            f"{component}.lora_alpha": alpha,
            f"{component}.rank_pattern": {n: r for n, r in ranks.items() if r != rank},
            f"{component}.alpha_pattern": {n: a for n, a in alphas.items() if a != alpha},
            f"{component}.target_modules": sorted(own),
            f"{component}.use_dora": any("dora_scale" in parts for parts in own.values()),
        }
    return config


def _rank(parts: Parts) -> int:
    return parts["down"].shape[0]
