"""Which parameter of which network every key of a file is, in either layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sdcore.checkpoints.ldm import open_clip_name, pieces, unet_name, vae_name
from sdcore.checkpoints.parameter_names import (
    Cut,
    Rename,
    shape_after,
    text_encoder_key,
    tiny_vae_key,
    unet_key,
    vae_key,
)
from sdcore.checkpoints.shapes import (
    Shapes,
    indices,
    text_encoder_config,
    tiny_vae_config,
    unet_config,
    vae_config,
)
from sdcore.checkpoints.tensor_info import TensorInfo
from sdcore.errors import InputError

Header = Mapping[str, TensorInfo]
Table = dict[str, Mapping[str, Cut]]  # key in the file -> the parameters stored there

# Where a component's keys begin, by its kind; "" for a file that holds nothing else.
PREFIXES = {
    "unet": ("model.diffusion_model.", "diffusion_model.", "unet.", ""),
    "vae": ("first_stage_model.", "vae.", ""),
    "text_encoder": (
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
        "conditioner.embedders.1.model.",
        "conditioner.embedders.0.model.",
        "text_encoder.",
        "text_encoder_2.",
        "",
    ),
}
# Beside a component's own weights: its training's loss, averages and counters, CLIP's other half,
# what an asymmetric VAE knows of a mask.
OTHER_KEYS = re.compile(
    r"(loss|model_ema)\..*|global_step|logit_scale|attn_mask|.*position_ids|logvar"
    r"|(vision_model|visual_projection|visual)\..*|decoder\.condition_encoder\..*"
)


@dataclass(frozen=True)
class Part:
    """One network's tensors in a file."""

    kind: str  # "unet", "vae", "text_encoder"
    prefix: str  # of its keys
    table: Table
    unknown: tuple[str, ...]  # keys under the prefix that are no parameter of such a network
    shapes: Shapes  # of the parameters, by the modules' own names

    def config(self, path: Path, name: str) -> dict[str, Any]:
        """What its shapes show, in the fields of config.json. Raises InputError."""
        tiny = any(key.startswith("decoder.layers.") for key in self.shapes)
        derive: dict[str, Callable[[Shapes], dict[str, Any]]] = {
            "unet": unet_config,
            "vae": tiny_vae_config if tiny else vae_config,
            "text_encoder": text_encoder_config,
        }
        try:
            return derive[self.kind](self.shapes)
        except InputError as error:
            raise InputError(f"{path}, {name}: {error}") from None


def kind_of(component: str) -> str:
    """ "text_encoder_2" is a "text_encoder"; the others are their own kind."""
    return "text_encoder" if component.startswith("text_encoder") else component


def part_at(
    info: Header, kind: str, prefix: str, used: Callable[[str], bool] = lambda name: True
) -> Part | None:
    """The network of a kind whose keys begin with `prefix`; None where there are no such keys.

    used: whether a parameter, by the modules' own name, is wanted.
    """
    keys = {key: key.removeprefix(prefix) for key in info if key.startswith(prefix)}
    rename = _rule(kind, keys.values())
    if rename is None:
        return None
    table: Table = {}
    unknown = []
    for key, rest in keys.items():
        if OTHER_KEYS.fullmatch(rest):
            continue
        name = rename(rest)
        if name is None:
            unknown.append(key)
        elif used(name):
            table[key] = pieces(name)
    shapes = {
        name: shape_after(cut, info[key].shape)
        for key, cuts in table.items()
        for name, cut in cuts.items()
    }
    return Part(kind, prefix, table, tuple(unknown), shapes)


def encoder_reads(layers: int | None, projected: bool) -> Callable[[str], bool]:
    """False for the layers and the projection of a text encoder that the UNet never hears of.

    layers: how many are used; None: all of them.
    """

    def used(name: str) -> bool:
        if name.startswith("text_projection"):
            return projected
        layer = re.match(r"text_model\.encoder\.layers\.(\d+)\.", name)
        return layer is None or layers is None or int(layer[1]) < layers

    return used


def _rule(kind: str, keys: Iterable[str]) -> Rename | None:
    """The rule for a component's keys, whichever layout they are in; None for other keys."""
    keys = list(keys)

    def has(*begins: str) -> bool:
        return any(key.startswith(begins) for key in keys)

    match kind:
        case "unet" if has("input_blocks."):
            return partial(unet_name, layers=ldm_layers(keys))
        case "unet" if has("down_blocks.") and has("time_embedding.", "conv_in."):
            return unet_key
        case "vae" if has("decoder.up."):
            return partial(vae_name, levels=ldm_levels(keys))
        case "vae" if has("decoder.up_blocks."):
            return vae_key
        case "vae" if has("decoder.layers.") or (has("1.weight") and has("3.conv.0.")):
            return tiny_vae_key
        case "text_encoder" if has("transformer.resblocks."):
            return open_clip_name
        case "text_encoder" if has("text_model.", "encoder.layers."):
            return text_encoder_key
    return None


def ldm_layers(keys: Iterable[str], prefix: str = "") -> int:
    """Residual blocks a level: as many as come between conv_in and the first halving."""
    return max(1, min(indices(keys, f"{prefix}input_blocks.", ".0.op."), default=3) - 1)


def ldm_levels(keys: Iterable[str], prefix: str = "") -> int:
    """The VAE's resolutions."""
    return 1 + max(indices(keys, f"{prefix}decoder.up."), default=0)


def look_up(table: Table, key: str) -> Mapping[str, Cut]:
    """The spelling that a table is."""
    return table.get(key, {})
