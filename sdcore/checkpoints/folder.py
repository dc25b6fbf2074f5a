"""The diffusers layout: a folder with a subfolder for every part."""

from pathlib import Path

from sdcore.checkpoints.checkpoint import Checkpoint, Component, check_agreement
from sdcore.checkpoints.find import INDEX
from sdcore.checkpoints.names import spelt, text_encoder_key, unet_key, vae_key
from sdcore.checkpoints.read import read_json
from sdcore.errors import InputError

# Component -> the stem of its weights file, and how its keys are spelt. SDXL has two text encoders,
# and its refiner only the one that is called the second.
PARTS = {
    "text_encoder": ("model", spelt(text_encoder_key)),
    "text_encoder_2": ("model", spelt(text_encoder_key)),
    "unet": ("diffusion_pytorch_model", spelt(unet_key)),
    "vae": ("diffusion_pytorch_model", spelt(vae_key)),
}
REQUIRED = ("unet", "vae")


def open_folder(path: Path) -> Checkpoint:
    """Describe the checkpoint in the folder `path`; the weights are not read yet.

    Raises InputError for a folder in another layout, a missing or unreadable file.
    """
    if not (path / INDEX).is_file():
        raise InputError(f"{path} is no model folder: {INDEX} is missing")
    index = read_json(path / INDEX)
    required = REQUIRED if (path / "text_encoder_2").is_dir() else ("text_encoder", *REQUIRED)
    components = {
        name: _component(path / name)
        for name in PARTS
        if name in required or (path / name).is_dir()
    }
    check_agreement(components)
    tokenizers = {f.name: f for f in sorted(path.glob("tokenizer*")) if f.is_dir()}
    if not tokenizers:
        raise InputError(f"{path / 'tokenizer'} is missing")
    scheduler = path / "scheduler" / "scheduler_config.json"
    if not scheduler.is_file() and "scheduler" in index:
        raise InputError(f"{scheduler} is missing")
    config = read_json(scheduler) if scheduler.is_file() else {}
    return Checkpoint(path, index, components, tokenizers, config)


def _component(folder: Path) -> Component:
    if not folder.is_dir():
        raise InputError(f"{folder} is missing")
    stem, spelling = PARTS[folder.name]
    path = folder / "config.json"
    return Component(folder.name, read_json(path), path, _weight_files(folder, stem), spelling)


def _weight_files(folder: Path, stem: str) -> tuple[Path, ...]:
    """The plain file before the float16 variant before shards: the most exact one there is."""
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (folder / name).is_file():
            return (folder / name,)
    shards = folder / f"{stem}.safetensors.index.json"
    if shards.is_file():
        weight_map = read_json(shards).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise InputError(f"{shards} has no weight_map")
        return tuple(folder / name for name in sorted(set(map(str, weight_map.values()))))
    if any(folder.glob("*.bin")):
        raise InputError(f"{folder} holds pickled weights (.bin) only; safetensors are read")
    raise InputError(f"{folder / f'{stem}.safetensors'} is missing")
