"""A checkpoint in the diffusers layout, as data: what it consists of, nothing loaded yet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcore.checkpoints.find import INDEX
from sdcore.checkpoints.read import read_json
from sdcore.errors import InputError

# Component -> the stem of its weights file. SDXL's second text encoder is read when it is there.
STEMS = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
REQUIRED = ("text_encoder", "unet", "vae")


@dataclass(frozen=True)
class Component:
    """One network of a checkpoint: its published configuration and the files of its weights."""

    name: str  # "unet", "vae", "text_encoder" ...
    config: dict[str, Any]  # the published config.json
    config_path: Path
    files: tuple[Path, ...]  # safetensors, several where the checkpoint is sharded


@dataclass(frozen=True)
class Checkpoint:
    """A whole model: the networks, the folders of its tokenizers, its scheduler's configuration."""

    path: Path
    index: dict[str, Any]  # model_index.json
    components: dict[str, Component]
    tokenizers: dict[str, Path]  # "tokenizer" -> folder
    scheduler: dict[str, Any]  # scheduler_config.json, {} where the checkpoint has none


def open_folder(path: Path) -> Checkpoint:
    """Describe the checkpoint in the folder `path`; the weights are not read yet.

    Raises InputError for a folder in another layout, a missing or unreadable file.
    """
    if not (path / INDEX).is_file():
        raise InputError(f"{path} is no model folder: {INDEX} is missing")
    index = read_json(path / INDEX)
    components = {}
    for name, stem in STEMS.items():
        if name in REQUIRED or (path / name).is_dir():
            components[name] = _component(path / name, name, stem)
    _check_agreement(components)
    tokenizers = {f.name: f for f in sorted(path.glob("tokenizer*")) if f.is_dir()}
    if "tokenizer" not in tokenizers:
        raise InputError(f"{path / 'tokenizer'} is missing")
    scheduler = path / "scheduler" / "scheduler_config.json"
    if not scheduler.is_file() and "scheduler" in index:
        raise InputError(f"{scheduler} is missing")
    config = read_json(scheduler) if scheduler.is_file() else {}
    return Checkpoint(path, index, components, tokenizers, config)


def _check_agreement(components: dict[str, Component]) -> None:
    """Networks of one checkpoint must fit each other, or the loop would fail with a shape error."""
    unet, vae = components["unet"], components["vae"]
    encoders = [c for name, c in components.items() if name.startswith("text_encoder")]
    widths = [int(c.config.get("hidden_size", 0)) for c in encoders]
    context = unet.config.get("cross_attention_dim")
    # SDXL's UNet takes both encoders side by side, its refiner only the second.
    if isinstance(context, int) and all(widths) and context not in (sum(widths), widths[-1]):
        raise InputError(
            f"{unet.config_path} says cross_attention_dim {context}, but "
            f"{encoders[0].config_path} says hidden_size {widths[0]}"
        )
    latent, out = vae.config.get("latent_channels"), unet.config.get("out_channels")
    if isinstance(latent, int) and isinstance(out, int) and latent != out:
        raise InputError(
            f"{unet.config_path} says out_channels {out}, but "
            f"{vae.config_path} says latent_channels {latent}"
        )


def _component(folder: Path, name: str, stem: str) -> Component:
    if not folder.is_dir():
        raise InputError(f"{folder} is missing")
    config_path = folder / "config.json"
    return Component(name, read_json(config_path), config_path, _weight_files(folder, stem))


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
