"""One component from somewhere else: a file of its own, or the same part of another model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from sdcore.checkpoints.checkpoint import Component
from sdcore.checkpoints.choose import CONFIG, INDEX
from sdcore.checkpoints.families import other_kind
from sdcore.checkpoints.find import find_model
from sdcore.checkpoints.folder import open_component, open_folder
from sdcore.checkpoints.ldm import open_clip_name, pieces, unet_name, vae_name
from sdcore.checkpoints.names import Rename, shape_after, text_encoder_key, unet_key, vae_key
from sdcore.checkpoints.read import read_header
from sdcore.checkpoints.shapes import (
    Shapes,
    heads_of_64,
    text_encoder_config,
    unet_config,
    vae_config,
)
from sdcore.checkpoints.spell import Table, ldm_layers, ldm_levels, look_up
from sdcore.errors import InputError, listed

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
# Beside a component's own weights: its training's loss, averages and counters, CLIP's other half.
IGNORED = re.compile(
    r"(loss|model_ema)\..*|global_step|logit_scale|attn_mask|.*position_ids"
    r"|(vision_model|visual_projection|visual)\..*"
)
# What a configuration says that shapes do not show: taken from the component that is replaced.
HIDDEN = ("attention_head_dim", "norm_num_groups", "num_attention_heads", "eos_token_id")


def open_part(
    place: str | Path, like: Component, variant: str | None = None, revision: str | None = None
) -> Component:
    """Describe what is to stand for the component `like`; no weights are read yet.

    Args:
        place: a file of the component alone or of a whole model, in either layout; a component's
            or a model's folder; a hub id of either.
        like: what it replaces, which says what shapes do not show: heads, scaling factor.

    Raises:
        InputError: nothing of that name, or no such component in it.
    """
    path = find_model(place, variant, revision)
    if path.is_dir():
        if (path / INDEX).is_file():
            found = open_folder(path, variant).components
            if like.name not in found:
                raise InputError(f"{path} has no {like.name}")
            return found[like.name]
        if not (path / CONFIG).is_file():
            raise InputError(f"{path} holds neither a model ({INDEX}) nor a component ({CONFIG})")
        return open_component(path, like.name, variant)
    return _from_file(path, like)


def _from_file(path: Path, like: Component) -> Component:
    info = read_header(path)
    kind = "text_encoder" if like.name.startswith("text_encoder") else like.name
    for prefix in PREFIXES[kind]:
        own = {k: k.removeprefix(prefix) for k in info if k.startswith(prefix)}
        rename = _rename(kind, own.values())
        if rename is None:
            continue
        table: Table = {}
        strangers = []
        for key, rest in own.items():
            name = None if IGNORED.fullmatch(rest) else rename(rest)
            if name is not None and _read(name, like):
                table[key] = pieces(name)
            elif name is None and not IGNORED.fullmatch(rest):
                strangers.append(key)
        shapes = {
            new: shape_after(cut, info[key].shape)
            for key, parts in table.items()
            for new, cut in parts.items()
        }
        # SDXL has two text encoders: the one of the width that is looked for.
        width = shapes.get("text_model.embeddings.token_embedding.weight", (0, 0))[-1]
        if kind == "text_encoder" and width != like.config.get("hidden_size"):
            continue
        if strangers:
            raise InputError(f"{path}, {like.name}: {listed('unknown keys', strangers)}")
        config = _config(path, kind, shapes, like)
        return Component(like.name, config, path, (path,), partial(look_up, table))
    held = other_kind(info) or listed("tensors", sorted(info)) or "nothing"
    raise InputError(f"{path} holds no {like.name} that fits: it holds {held}")


def _rename(kind: str, keys: Iterable[str]) -> Rename | None:
    """The rule for a component's keys, whichever layout they are in; None for other keys."""
    keys = list(keys)

    def has(*begins: str) -> bool:
        return any(key.startswith(begins) for key in keys)

    match kind:
        case "unet" if has("input_blocks."):
            return partial(unet_name, layers=ldm_layers(keys))
        case "unet" if has("down_blocks."):
            return unet_key
        case "vae" if has("decoder.up."):
            return partial(vae_name, levels=ldm_levels(keys))
        case "vae" if has("decoder.up_blocks."):
            return vae_key
        case "text_encoder" if has("transformer.resblocks."):
            return open_clip_name
        case "text_encoder" if has("text_model.", "encoder.layers."):
            return text_encoder_key
    return None


def _read(name: str, like: Component) -> bool:
    """False for the layers and the projection that the encoder to be replaced does not use."""
    if name.startswith("text_projection"):
        return "CLIPTextModelWithProjection" in (like.config.get("architectures") or [])
    layer = re.match(r"text_model\.encoder\.layers\.(\d+)\.", name)
    return layer is None or int(layer[1]) < like.config.get("num_hidden_layers", 12)


def _config(path: Path, kind: str, shapes: Shapes, like: Component) -> dict:
    derive: dict[str, Callable[[Shapes], dict]] = {
        "unet": lambda s: unet_config(s, heads_of_64 if linear else lambda width: 8),
        "vae": vae_config,
        "text_encoder": text_encoder_config,
    }
    linear = len(shapes.get("mid_block.attentions.0.proj_in.weight", ())) == 2
    try:
        found = derive[kind](shapes)
    except InputError as error:
        raise InputError(f"{path}, {like.name}: {error}") from None
    widths = ("block_out_channels", "hidden_size")
    if all(list_of(found.get(w)) == list_of(like.config.get(w)) for w in widths):
        found |= {field: like.config[field] for field in HIDDEN if field in like.config}
    return {**like.config, **found}


def list_of(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
