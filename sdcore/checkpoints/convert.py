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
from sdcore.checkpoints.choose import CONFIG, INDEX, TOKENIZER_FILES
from sdcore.checkpoints.families import FAMILIES, UNET, VAE, Family
from sdcore.checkpoints.find import WEIGHTS
from sdcore.checkpoints.folder import CLASSES
from sdcore.checkpoints.ldm import open_clip_name
from sdcore.checkpoints.ldm_write import text_encoder_to_open_clip, unet_to_ldm, vae_to_ldm
from sdcore.checkpoints.read import Weights, as_dtype, read_json
from sdcore.checkpoints.single_file import CONFIGS
from sdcore.errors import InputError
from sdcore.writing import written_whole

State = dict[str, Tensor]


def convert(
    checkpoint: Checkpoint,
    target: Path,
    dtype: torch.dtype | None = None,
    states: Mapping[str, State] | None = None,
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
    if target.suffix.lower() in WEIGHTS and target.suffix != ".safetensors":
        name = target.with_suffix(".safetensors")
        raise InputError(f"a single file is written as .safetensors: name it {name}")
    states = {} if states is None else states
    write = _write_file if target.suffix == ".safetensors" else _write_folder
    with written_whole(target) as path:
        write(checkpoint, path, dtype, states)


def component_state(component: Component, dtype: torch.dtype | None) -> State:
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
    checkpoint: Checkpoint, path: Path, dtype: torch.dtype | None, states: Mapping[str, State]
) -> None:
    family = family_of(checkpoint)
    tensors: State = {}
    for name, component in checkpoint.components.items():
        state = states[name] if name in states else component_state(component, dtype)
        if name in CLASSES:
            prefix, found = (
                (UNET, unet_to_ldm(state)) if name == "unet" else (VAE, vae_to_ldm(state))
            )
        else:
            place = name if name in family.encoders else next(iter(family.encoders))
            prefix, encoder = family.encoders[place]
            found = text_encoder_to_open_clip(state) if encoder.rename is open_clip_name else state
        tensors |= {f"{prefix}{key}": tensor for key, tensor in found.items()}
    configs: dict[str, Any] = {n: c.config for n, c in checkpoint.components.items()}
    index = {k: v for k, v in checkpoint.index.items() if not isinstance(v, list)}
    prediction = checkpoint.scheduler.get("prediction_type", "epsilon")
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.prediction_type": "v" if prediction == "v_prediction" else prediction,
        CONFIGS: json.dumps(configs | {"scheduler": checkpoint.scheduler, "index": index}),
    }
    _save(tensors, path, metadata)


def _write_folder(
    checkpoint: Checkpoint, folder: Path, dtype: torch.dtype | None, states: Mapping[str, State]
) -> None:
    # Of what is not written, such as a safety checker, diffusers is told that there is none.
    told = {k: [None, None] if isinstance(v, list) else v for k, v in checkpoint.index.items()}
    index: dict[str, Any] = {**_pipeline(checkpoint), **told}
    encoders = [name for name in checkpoint.components if name.startswith("text_encoder")]
    sources = {name: checkpoint.vocabulary(name) for name in encoders}  # before anything is written
    for name, component in checkpoint.components.items():
        config = dict(component.config)
        if name in CLASSES:
            library, kind, stem = "diffusers", CLASSES[name], "diffusion_pytorch_model"
            config["_class_name"] = kind
            if name == "vae":
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
    for name, (source, pad) in sources.items():
        tokenizer = name.replace("text_encoder", "tokenizer")
        index[tokenizer] = ["transformers", "CLIPTokenizer"]
        _copy_vocabulary(source, folder / tokenizer, pad)
    if checkpoint.scheduler:
        kind = checkpoint.scheduler.get("_class_name", "PNDMScheduler")
        index["scheduler"] = ["diffusers", kind]
        (folder / "scheduler").mkdir()
        _dump(checkpoint.scheduler, folder / "scheduler" / "scheduler_config.json")
    _dump(index, folder / INDEX)


def _pipeline(checkpoint: Checkpoint) -> dict[str, Any]:
    """What diffusers' model_index.json says of such a model beside its parts."""
    unet = checkpoint.components["unet"].config
    family = family_of(checkpoint).name
    if family == "SDXL refiner":
        told = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}
        absent = {"text_encoder": [None, None], "tokenizer": [None, None]}
        return {"_class_name": "StableDiffusionXLImg2ImgPipeline", **told, **absent}
    if unet.get("time_cond_proj_dim") is not None:
        return {"_class_name": "LatentConsistencyModelPipeline"}
    inpaint = "Inpaint" if unet.get("in_channels", 4) == 9 else ""
    if family == "SDXL":
        kind = f"StableDiffusionXL{inpaint}Pipeline"
        return {"_class_name": kind, "force_zeros_for_empty_prompt": True}
    return {"_class_name": f"StableDiffusion{inpaint}Pipeline"}


def _copy_vocabulary(source: Path, folder: Path, pad: str | None) -> None:
    folder.mkdir()
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    settings, special = (folder / name for name in TOKENIZER_FILES[-2:])
    if not settings.is_file():
        _dump({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}, settings)
    if pad is not None:
        for path in (settings, special):
            _dump((read_json(path) if path.is_file() else {}) | {"pad_token": pad}, path)


def family_of(checkpoint: Checkpoint) -> Family:
    """The family whose single files a checkpoint's components make. Raises InputError."""
    unet = checkpoint.components["unet"].config
    encoders = [name for name in checkpoint.components if name.startswith("text_encoder")]
    if unet.get("addition_embed_type") is None:
        name = "SD 2.x" if unet.get("use_linear_projection") else "SD 1.x"
    else:
        name = "SDXL" if len(encoders) == 2 else "SDXL refiner"
    return next(family for family in FAMILIES if family.name == name)


def _dump(value: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _save(tensors: State, path: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    save_file({k: t.contiguous() for k, t in tensors.items()}, path, metadata)
