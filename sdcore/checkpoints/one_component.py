"""One component from somewhere else: a file of its own, or the same part of another model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sdcore.checkpoints.checkpoint import Component
from sdcore.checkpoints.find import find_model
from sdcore.checkpoints.folder import open_component, open_folder
from sdcore.checkpoints.key_tables import PREFIXES, encoder_reads, kind_of, look_up, part_at
from sdcore.checkpoints.kinds import other_kind
from sdcore.checkpoints.read import read_header, read_json, read_metadata
from sdcore.checkpoints.single_file import saved_configs
from sdcore.checkpoints.weight_files import CONFIG, INDEX
from sdcore.errors import InputError, listed

# What a configuration says that shapes do not show: taken from the component that is replaced.
HIDDEN = ("attention_head_dim", "norm_num_groups", "num_attention_heads", "eos_token_id")

# What has a UNet's keys on the way down, and is none.
NO_UNETS = ("a ControlNet", "a motion module", "a T2I-Adapter")


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
            components = open_folder(path, variant).components
            if like.name not in components:
                raise InputError(f"{path} has no {like.name}")
            return components[like.name]
        if not (path / CONFIG).is_file():
            raise InputError(f"{path} holds neither a model ({INDEX}) nor a component ({CONFIG})")
        component = open_component(path, like.name, variant)
        if "text_config" in read_json(path / CONFIG) and len(component.files) == 1:
            return _from_file(component.files[0], like)  # a whole CLIP: read as its file is
        return component
    return _from_file(path, like)


def _from_file(path: Path, like: Component) -> Component:
    info, kind = read_header(path), kind_of(like.name)
    held = other_kind(info)
    if kind == "unet" and held in NO_UNETS:
        raise InputError(f"{path} holds {held}, and no UNet")
    projected = "CLIPTextModelWithProjection" in (like.config.get("architectures") or [])
    used = encoder_reads(like.config.get("num_hidden_layers"), projected)
    for prefix in PREFIXES[kind]:
        part = part_at(info, kind, prefix, used if kind == "text_encoder" else lambda name: True)
        if part is None:
            continue
        # SDXL has two text encoders: the one of the width that is looked for, where it is known.
        width = part.shapes.get("text_model.embeddings.token_embedding.weight", (0, 0))[-1]
        if kind == "text_encoder":
            if like.config.get("hidden_size", width) != width:
                continue
            if projected and "text_projection.weight" not in part.shapes:
                continue
        if part.unknown:
            raise InputError(f"{path}, {like.name}: {listed('unknown keys', part.unknown)}")
        saved = saved_configs(path, read_metadata(path)).get(like.name) if prefix else None
        if saved is not None:  # a model that `convert` wrote
            return Component(like.name, saved, path, (path,), partial(look_up, part.table))
        config = part.config(path, like.name)
        widths = ("block_out_channels", "hidden_size")
        if all(_list(config.get(w)) == _list(like.config.get(w)) for w in widths):
            config |= {field: like.config[field] for field in HIDDEN if field in like.config}
        # A tiny VAE shares no field with the model's own; else what no shape shows is as there.
        config = config if "num_decoder_blocks" in config else {**like.config, **config}
        return Component(like.name, config, path, (path,), partial(look_up, part.table))
    held = held or listed("tensors", sorted(info)) or "nothing"
    raise InputError(f"{path} holds no {like.name} that fits: it holds {held}")


def _list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
