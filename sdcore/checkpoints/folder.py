"""The diffusers layout: a folder with a subfolder for every part."""

from pathlib import Path
from typing import Any

from sdcore.checkpoints.checkpoint import Checkpoint, Component, check_agreement
from sdcore.checkpoints.parameter_names import spelt, text_encoder_key, unet_key, vae_key
from sdcore.checkpoints.read import read_json
from sdcore.checkpoints.weight_files import CONFIG, INDEX, has_variant, shards, weights_name
from sdcore.errors import InputError
from sdcore.models.vae_config import TINY

# Component -> how its keys are spelt. SDXL has two text encoders, and its refiner only the one that
# is called the second.
PARTS = {
    "text_encoder": spelt(text_encoder_key),
    "text_encoder_2": spelt(text_encoder_key),
    "unet": spelt(unet_key),
    "vae": spelt(vae_key),
}
REQUIRED = ("unet", "vae")
DIFFUSERS_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
VAE_CLASSES = ("AutoencoderKL", "AsymmetricAutoencoderKL", TINY)


def open_folder(path: Path, variant: str | None = None) -> Checkpoint:
    """Describe the checkpoint in the folder `path`; the weights are not read yet.

    Args:
        variant: "fp16", "non_ema" ...: which of several forms of the weights, for every component
            that comes in it.

    Raises:
        InputError: a folder in another layout, a missing or unreadable file, a variant that no
            component comes in.
    """
    if not (path / INDEX).is_file():
        raise InputError(f"{path} is no model folder: {INDEX} is missing")
    index = read_json(path / INDEX)
    required = REQUIRED if (path / "text_encoder_2").is_dir() else ("text_encoder", *REQUIRED)
    components = {
        name: open_component(path / name, name, variant)
        for name in PARTS
        if name in required or (path / name).is_dir()
    }
    if variant is not None and not any(
        has_variant(name, _names(path / name), variant) for name in components
    ):
        raise InputError(f"{path} has no variant {variant!r} of any component")
    check_agreement(components)
    tokenizers = {f.name: f for f in sorted(path.glob("tokenizer*")) if f.is_dir()}
    promised = {name for name, entry in index.items() if entry not in (None, [None, None])}
    needed = {name for name in promised if name.startswith("tokenizer")}
    lacking = sorted(needed - tokenizers.keys()) if tokenizers else ["tokenizer"]
    if lacking:
        raise InputError(f"{path / lacking[0]} is missing")
    scheduler = path / "scheduler" / "scheduler_config.json"
    if not scheduler.is_file() and "scheduler" in index:
        raise InputError(f"{scheduler} is missing")
    config = read_json(scheduler) if scheduler.is_file() else {}
    return Checkpoint(path, index, components, tokenizers, config)


def open_component(folder: Path, name: str, variant: str | None = None) -> Component:
    """Describe the component `name` in a folder of its own. Raises InputError as `open_folder`."""
    if not folder.is_dir():
        raise InputError(f"{folder} is missing")
    path = folder / CONFIG
    config, weights = read_json(path), weights_name(name, _names(folder), variant)
    kind = config.get("_class_name")
    if name in DIFFUSERS_CLASSES and kind not in (
        None,
        DIFFUSERS_CLASSES[name],
        *(VAE_CLASSES if name == "vae" else ()),
    ):
        raise InputError(
            f"{path} is of class {kind}; what is read as {name} is {DIFFUSERS_CLASSES[name]}"
        )
    spelling = PARTS[name]
    if name not in DIFFUSERS_CLASSES and isinstance(config.get("text_config"), dict):
        projected = name == "text_encoder_2"
        config = _text_half(config, projected)
        if not projected:
            spelling = spelt(_without_projection)
    if weights is None:
        raise InputError(f"{folder} holds no weights: a .safetensors or .bin file is missing")
    files = shards(folder / weights) if weights.endswith(".json") else (weights,)
    return Component(name, config, path, tuple(folder / file for file in files), spelling)


def _names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def _text_half(config: dict[str, Any], projected: bool) -> dict[str, Any]:
    """The text encoder's fields of a whole CLIPModel's config.json."""
    text = dict(config["text_config"])
    if config.get("projection_dim") is not None:
        text["projection_dim"] = config["projection_dim"]
    kind = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
    return {**text, "architectures": [kind]}


def _without_projection(key: str) -> str | None:
    return None if key.startswith("text_projection.") else text_encoder_key(key)
