"""What is in a file or a folder, from names and shapes: no weights are read.

(But for one: SD 2.x says nowhere what its UNet predicts, and 320 numbers of it give that away.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdcore.adapters.embeddings import FOLDER_NAMES, open_embedding
from sdcore.adapters.files import NAMES
from sdcore.adapters.lora import BUNDLE
from sdcore.adapters.names import split_key
from sdcore.checkpoints.checkpoint import Checkpoint, Component
from sdcore.checkpoints.convert import family_of
from sdcore.checkpoints.find import bundled_adapters, bundled_embeddings, find_model
from sdcore.checkpoints.folder import PARTS, open_folder
from sdcore.checkpoints.key_tables import PREFIXES, part_at
from sdcore.checkpoints.kinds import VIDEO, other_kind
from sdcore.checkpoints.ldm_families import UNET, edm_refusal, family_of_unet
from sdcore.checkpoints.load import check_component
from sdcore.checkpoints.read import Weights, read_metadata
from sdcore.checkpoints.shapes import unet_config
from sdcore.checkpoints.single_file import lacking_line, open_file
from sdcore.checkpoints.tensor_info import DTYPES, TensorInfo
from sdcore.checkpoints.weight_files import INDEX, shards, weights_name
from sdcore.errors import InputError

Infos = Mapping[str, TensorInfo]
CONTEXTS = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL", 1280: "SDXL refiner"}
NOTHING = Component("vae", {}, Path(), (), lambda key: {})
TEXTUAL_INVERSION = "textual inversion"
ARCHITECTURE = "general.architecture"  # of a GGUF file: "sd1", "sdxl", and of others "llama" ...
# What a LoRA's names also occur in.
NO_LORA = ("ControlNet", "IP-Adapter", "PhotoMaker", "OFT adapter", "BOFT adapter", "IA3 adapter")
RANKED = (
    "down",
    "hada_w1_b",
    "lokr_w2_b",
    "glora_a1",
)  # the parts whose rows are as many as the rank
EMBEDDING_KEYS = ("*", "emb_params", "clip_l", "clip_g", "text_encoders_0", "text_encoders_1")
COMPONENTS = ("unet", "te1", "te2", "te", "text_encoder_2", "text_encoder", "transformer")


def inspect(place: str | Path, variant: str | None = None) -> dict[str, Any]:
    """A report on a model, a LoRA, a textual inversion or whatever else is at `place`.

    Returns:
        "path", "kind", "layout", "tensors" (their number), "dtypes" (how many of each),
        "parameters", of quantized ones "bits_a_weight"; of a model also "family",
        "prediction_type", "scheduler", "components", "ignored_keys", "notes"; of a LoRA "ranks",
        "targets"; of an embedding "vectors"; and "refused", the line that says why it cannot be
        drawn with, where that is so.

    Raises:
        InputError: nothing is there, or a broken file.
    """
    bundled = {**bundled_embeddings(), **bundled_adapters()}
    path = bundled[str(place)] if str(place) in bundled else find_model(place, variant)
    if (path / INDEX).is_file():
        return {"path": str(path), "kind": "model", "layout": "diffusers folder"} | _model(
            open_folder(path, variant)
        )
    layout = "folder" if path.is_dir() else f"single file ({path.suffix})"
    if path.suffix.lower() == ".png":
        word = open_embedding(path)
        vectors = {key or "emb_params": list(t.shape) for key, t in word.vectors.items()}
        return {"path": str(path), "kind": TEXTUAL_INVERSION, "layout": layout, "vectors": vectors}
    files = _weights_in(path, variant) if path.is_dir() else (path,)
    info = Weights(files).info
    kind = other_kind(info).partition(" ")[2] or "unknown"
    report = {"path": str(path), "kind": kind, "layout": layout} | _counts(info)
    architecture = None if path.is_dir() else read_metadata(path).get(ARCHITECTURE)
    report |= {} if architecture is None else {"architecture": architecture}
    if part_at(info, "unet", UNET) is not None and not any(VIDEO in key for key in info):
        report["kind"] = "model"
        try:
            return report | _model(open_file(path, given=PARTS))
        except InputError as error:
            return report | {"refused": str(error)}
    lora = None if kind in NO_LORA else _lora(info)
    if lora is not None:
        return report | {"kind": "LoRA"} | lora
    vectors = _embedding(info)
    if vectors is not None:
        return report | {"kind": TEXTUAL_INVERSION, "vectors": vectors}
    report |= _component(info)
    if path.is_dir():
        return report | {"refused": f"{path} is no model folder: {INDEX} is missing"}
    try:
        return report | {"kind": "model"} | _model(open_file(path))
    except InputError as error:
        return report | {"refused": str(error)}


def _weights_in(folder: Path, variant: str | None) -> tuple[Path, ...]:
    """The weights in the folder of a component or of an adapter. Raises InputError for others."""
    names = {file.name for file in folder.iterdir()}
    places = [*(weights_name(part, names, variant) for part in PARTS)]
    places += names.intersection([*NAMES, *FOLDER_NAMES])
    name = next(filter(None, places), None)
    if name is None:
        raise InputError(f"{folder} is no model folder: {INDEX} is missing")
    files = shards(folder / name) if name.endswith(".json") else (name,)
    return tuple(folder / file for file in files)


def _counts(info: Infos) -> dict[str, Any]:
    weights = sum(i.count for i in info.values())
    counts: dict[str, Any] = {
        "tensors": len(info),
        "parameters": weights,
        "dtypes": dict(Counter(i.dtype for i in info.values()).most_common()),
    }
    if any(i.packed for i in info.values()):
        counts["bits_a_weight"] = round(8 * sum(i.nbytes for i in info.values()) / weights, 2)
    return counts


def _model(checkpoint: Checkpoint) -> dict[str, Any]:
    components, stored, read = {}, set(), set()
    for name, component in checkpoint.components.items():
        info = Weights(component.files).info
        own = {key: i for key, i in info.items() if component.spelling(key)}
        components[name] = _counts(own) | {"keys": sum(len(component.spelling(k)) for k in own)}
        stored |= {(component.files, key) for key in info}
        read |= {(component.files, key) for key in own}
    refusal = edm_refusal(checkpoint.scheduler, checkpoint.components.get("vae", NOTHING).config)
    report = {
        "family": family_of(checkpoint).name + (", EDM" if refusal else ""),
        "prediction_type": checkpoint.scheduler.get("prediction_type", "epsilon"),
        "scheduler": checkpoint.scheduler.get("_class_name"),
        "in_channels": checkpoint.components["unet"].config.get("in_channels", 4),
        "components": components,
        "ignored_keys": len(stored - read),
        "notes": list(checkpoint.notes),
        "lacks": list(checkpoint.lacking),
    }
    if refusal:
        return report | {"refused": f"{checkpoint.path}: {refusal}"}
    if checkpoint.lacking:
        return report | {"refused": lacking_line(checkpoint)}
    try:
        for component in checkpoint.components.values():
            check_component(component)
        for name in filter(lambda name: name.startswith("text_encoder"), components):
            checkpoint.vocabulary(name)
    except InputError as error:
        report["refused"] = str(error)
    return report


def _lora(info: Infos) -> dict[str, Any] | None:
    parts = {key: split for key in info if (split := split_key(key)) is not None}
    if not parts:
        return None
    targets: dict[str, set[str]] = {}
    for layer, _ in parts.values():
        plain = layer.removeprefix("lora_").removeprefix("lycoris_")
        begin = next((c for c in COMPONENTS if plain.startswith(c)), "other")
        targets.setdefault(begin, set()).add(layer)
    ranks = Counter(
        info[key].shape[0]
        for key, (_, part) in parts.items()
        if part in RANKED and len(info[key].shape) > 1
    )
    return {
        "type": _lora_type({part for _, part in parts.values()}),
        "family": _lora_family(info, parts),
        "words": sorted({key.split(".")[1] for key in info if key.startswith(BUNDLE)}),
        "ranks": {str(rank): count for rank, count in sorted(ranks.items())},
        "targets": {name: len(layers) for name, layers in sorted(targets.items())},
        "unknown_keys": sorted(
            key for key in info if key not in parts and not key.startswith(BUNDLE)
        ),
    }


def _lora_type(parts: set[str]) -> str:
    marks = {"hada_w1_a": "LoHa", "lokr_w1": "LoKr", "lokr_w1_a": "LoKr", "glora_a1": "GLoRA"}
    names = [name for mark, name in marks.items() if mark in parts][:1]
    names += ["DoRA"] if parts & {"dora_scale", "magnitude"} else []
    return " ".join(names) or ("LoRA" if "down" in parts else "difference")


def _lora_family(info: Infos, parts: Mapping[str, tuple[str, str]]) -> str | None:
    """By the width of the text that the UNet's layers are told."""
    for key, (layer, part) in parts.items():
        shape = info[key].shape
        if part in ("down", "glora_a1") and re.search(r"attn2[._]to_[kv]$", layer) and shape[1:]:
            return CONTEXTS.get(shape[1])
    return None


def _component(info: Infos) -> dict[str, Any]:
    """The family of a UNet that stands alone."""
    for prefix in PREFIXES["unet"]:
        part = part_at(info, "unet", prefix)
        if part is not None and not part.unknown:
            try:
                return {"family": family_of_unet(unet_config(part.shapes)).name}
            except InputError:
                return {}
    return {}


def _embedding(info: Infos) -> dict[str, list[int]] | None:
    """Shapes by key, of a file of one or two small matrices as wide as a CLIP, or named so."""
    shapes = {k: list(i.shape) for k, i in info.items() if i.dtype in DTYPES}
    named = all(key in EMBEDDING_KEYS or re.fullmatch("<.+>", key) for key in shapes)
    wide = all(s[-1:] in ([768], [1024], [1280]) for s in shapes.values())
    small = len(shapes) <= 2 and (named or wide)
    few = all(len(s) == 1 or (len(s) == 2 and s[0] <= 75) for s in shapes.values())
    return shapes if shapes and small and few else None
