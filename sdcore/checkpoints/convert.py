"""A checkpoint from either layout to either: weights bit for bit, configurations carried along."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdcore.checkpoints.checkpoint import Checkpoint, Component
from sdcore.checkpoints.find import WEIGHT_SUFFIXES
from sdcore.checkpoints.folder import DIFFUSERS_CLASSES
from sdcore.checkpoints.ldm import open_clip_name
from sdcore.checkpoints.ldm_families import UNET, VAE, LDMFamily, family_of_unet
from sdcore.checkpoints.ldm_write import text_encoder_to_open_clip, unet_to_ldm, vae_to_ldm
from sdcore.checkpoints.read import Weights, as_dtype, read_json
from sdcore.checkpoints.single_file import CONFIGS
from sdcore.checkpoints.vocabulary import ADDED, added_words
from sdcore.checkpoints.weight_files import CONFIG, INDEX, TOKENIZER_FILES
from sdcore.errors import InputError
from sdcore.models.unet_inputs import unet_inputs
from sdcore.models.vae_config import TINY
from sdcore.writing import written_whole

StateDict = dict[str, Tensor]


def convert(
    checkpoint: Checkpoint,
    target: Path,
    dtype: torch.dtype | None = None,
    states: Mapping[str, StateDict] | None = None,
) -> None:
    """Write `checkpoint` as one file, where `target` ends in .safetensors, else as a folder.

    Args:
        dtype: of the floating weights; None leaves each as it is stored.
        states: component -> parameters in place of its own (`sdcore.adapters.merged`).

    Raises:
        InputError: a target that is there already or cannot be written, or of another suffix; a
            single file whose vocabulary is not at hand, which a folder needs.

    Everything is written beside the target, which then gets its name: it is whole or not there.
    """
    if target.suffix.lower() in WEIGHT_SUFFIXES and target.suffix != ".safetensors":
        if target.suffix.lower() == ".gguf":
            raise InputError("a .gguf file is written by sdcore quantize")
        name = target.with_suffix(".safetensors")
        raise InputError(f"a single file is written as .safetensors: name it {name}")
    states = {} if states is None else states
    check_writable(checkpoint, target.suffix == ".safetensors")
    write = _write_file if target.suffix == ".safetensors" else _write_folder
    with written_whole(target) as path:
        write(checkpoint, path, dtype, states)


def check_writable(checkpoint: Checkpoint, single_file: bool) -> None:
    """Raises InputError for what would be lost: a layout cannot hold it, or it is not read."""
    vae, unet = (checkpoint.components[name].config for name in ("vae", "unet"))
    if "up_block_out_channels" in vae:
        raise InputError(
            f"{checkpoint.path} has an asymmetric VAE, whose encoder of masks is not read: "
            "converted, it would be lost"
        )
    if not single_file:
        return
    if vae.get("_class_name") == TINY:
        raise InputError("a single file has no place for a tiny VAE: write a folder")
    layers = unet.get("layers_per_block", 2)
    if isinstance(layers, list | tuple) and len(set(layers)) > 1:
        raise InputError(f"a single file has no place for a UNet of {list(layers)} layers a block")


def component_state(component: Component, dtype: torch.dtype | None) -> StateDict:
    """A component's parameters by the modules' own names, mapped where they can be."""
    weights = Weights(component.files)
    cuts = {key: component.spelling(key) for key in weights.names()}
    wanted = {key for key, parts in cuts.items() if parts}
    return {
        name: as_dtype(cut(tensor), dtype).contiguous()
        for key, tensor in weights.read(wanted)
        for name, cut in cuts[key].items()
    }


def _write_file(
    checkpoint: Checkpoint, path: Path, dtype: torch.dtype | None, states: Mapping[str, StateDict]
) -> None:
    tensors = single_file_tensors(checkpoint, dtype, states)
    prediction = prediction_type(checkpoint)
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.prediction_type": "v" if prediction == "v_prediction" else prediction,
        CONFIGS: single_file_configs(checkpoint),
    }
    _save(tensors, path, metadata)


def single_file_tensors(
    checkpoint: Checkpoint,
    dtype: torch.dtype | None = None,
    states: Mapping[str, StateDict] | None = None,
) -> StateDict:
    """Every weight by its key in a single file of the LDM layout, as for `convert`."""
    family = family_of(checkpoint)
    tensors: StateDict = {}
    for name, component in checkpoint.components.items():
        given = None if states is None else states.get(name)
        state = component_state(component, dtype) if given is None else given
        if name in DIFFUSERS_CLASSES:
            prefix, found = (
                (UNET, unet_to_ldm(state)) if name == "unet" else (VAE, vae_to_ldm(state))
            )
        else:
            place = name if name in family.encoders else next(iter(family.encoders))
            prefix, encoder = family.encoders[place]
            found = text_encoder_to_open_clip(state) if encoder.rename is open_clip_name else state
        tensors |= {f"{prefix}{key}": tensor for key, tensor in found.items()}
    return tensors


def single_file_configs(checkpoint: Checkpoint) -> str:
    """What shapes do not show, as JSON: `open_file` reads it under the key `CONFIGS`."""
    configs: dict[str, Any] = {n: c.config for n, c in checkpoint.components.items()}
    index = {k: v for k, v in checkpoint.index.items() if not isinstance(v, list)}
    words = dict(checkpoint.added_words)
    if checkpoint.tokenizers:
        words = added_words(next(iter(checkpoint.tokenizers.values()))) | words
    configs |= {"added_words": words} if words else {}
    return json.dumps(configs | {"scheduler": checkpoint.scheduler, "index": index})


def prediction_type(checkpoint: Checkpoint) -> str:
    """What its scheduler's configuration says. Raises InputError for what is no name."""
    prediction = checkpoint.scheduler.get("prediction_type", "epsilon")
    if not isinstance(prediction, str):
        raise InputError(
            f"the scheduler config has prediction_type = {prediction!r:.80}: it cannot be that"
        )
    return prediction


def _write_folder(
    checkpoint: Checkpoint, folder: Path, dtype: torch.dtype | None, states: Mapping[str, StateDict]
) -> None:
    # Of what is not written, such as a safety checker, diffusers is told that there is none.
    kept = {k: [None, None] if isinstance(v, list) else v for k, v in checkpoint.index.items()}
    index: dict[str, Any] = {**_pipeline(checkpoint), **kept}
    encoders = [name for name in checkpoint.components if name.startswith("text_encoder")]
    sources = {name: checkpoint.vocabulary(name) for name in encoders}  # before anything is written
    for name, component in checkpoint.components.items():
        config = dict(component.config)
        if name in DIFFUSERS_CLASSES:
            library, kind, stem = "diffusers", DIFFUSERS_CLASSES[name], "diffusion_pytorch_model"
            if config.get("_class_name") == TINY:
                kind = TINY
            config["_class_name"] = kind
            if name == "vae" and kind != TINY:
                levels = len(config["block_out_channels"])
                config.setdefault("down_block_types", ["DownEncoderBlock2D"] * levels)
                config.setdefault("up_block_types", ["UpDecoderBlock2D"] * levels)
        else:
            library, stem = "transformers", "model"
            kind = (config.get("architectures") or ["CLIPTextModel"])[0]
            config["model_type"] = "clip_text_model"
        index[name] = [library, kind]
        (folder / name).mkdir(parents=True)
        _dump(config, folder / name / CONFIG)
        state = states[name] if name in states else component_state(component, dtype)
        _save(state, folder / name / f"{stem}.safetensors", {"format": "pt"})
    for name, (source, pad, words) in sources.items():
        tokenizer = name.replace("text_encoder", "tokenizer")
        index[tokenizer] = ["transformers", "CLIPTokenizer"]
        _copy_vocabulary(source, folder / tokenizer, pad, words)
    if checkpoint.scheduler:
        kind = checkpoint.scheduler.get("_class_name", "PNDMScheduler")
        index["scheduler"] = ["diffusers", kind]
        (folder / "scheduler").mkdir()
        _dump(checkpoint.scheduler, folder / "scheduler" / "scheduler_config.json")
    _dump(index, folder / INDEX)


def _pipeline(checkpoint: Checkpoint) -> dict[str, Any]:
    """What diffusers' model_index.json says of such a model beside its parts."""
    index = {"_class_name": pipeline_class(checkpoint)}
    family = family_of(checkpoint).name
    if family == "SDXL refiner":
        told = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}
        absent = {"text_encoder": [None, None], "tokenizer": [None, None]}
        return {**index, **told, **absent}
    return index | ({"force_zeros_for_empty_prompt": True} if family == "SDXL" else {})


def pipeline_class(checkpoint: Checkpoint) -> str:
    """The class that diffusers draws such a model with: "StableDiffusionPipeline" ..."""
    family = family_of(checkpoint).name
    inputs = unet_inputs(checkpoint.components["unet"].config)
    if family == "SDXL refiner":
        return "StableDiffusionXLImg2ImgPipeline"
    xl = "XL" if family == "SDXL" else ""
    if inputs.scale_width is not None and not xl:  # SDXL's own pipeline tells the scale, too
        return "LatentConsistencyModelPipeline"
    return f"StableDiffusion{xl}{'Inpaint' if inputs.repaints else ''}Pipeline"


def _copy_vocabulary(source: Path, folder: Path, pad: str | None, words: Mapping[str, int]) -> None:
    folder.mkdir()
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    settings, special = (folder / name for name in TOKENIZER_FILES[-2:])
    if not settings.is_file():
        _dump({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}, settings)
    if words:
        _dump({**added_words(source), **words}, folder / ADDED)
    if pad is not None:
        for path in (settings, special):
            _dump((read_json(path) if path.is_file() else {}) | {"pad_token": pad}, path)


def family_of(checkpoint: Checkpoint) -> LDMFamily:
    """The family whose single files a checkpoint's components make."""
    names = {**checkpoint.components, **checkpoint.lacking}
    count = sum(name.startswith("text_encoder") for name in names)
    return family_of_unet(checkpoint.components["unet"].config, count)


def _dump(value: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _save(tensors: StateDict, path: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    save_file({k: t.contiguous() for k, t in tensors.items()}, path, metadata)
