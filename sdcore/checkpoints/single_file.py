"""A single file in the LDM layout, .safetensors or pickled, described as a folder is."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sdcore.checkpoints.checkpoint import Checkpoint, Component, check_agreement
from sdcore.checkpoints.families import LCM, UNET, Family, recognise
from sdcore.checkpoints.names import shape_after
from sdcore.checkpoints.read import Weights, read_header, read_metadata
from sdcore.checkpoints.shapes import indices, text_encoder_config, unet_config, vae_config
from sdcore.checkpoints.spell import Header, Table, look_up, spell
from sdcore.checkpoints.vocabulary import find_vocabulary
from sdcore.errors import InputError
from sdcore.schedulers.config import SD15
from sdcore.strict_json import parse

CONFIGS = "sdcore.configs"  # of the metadata: what shapes do not show, from the model's folder


def open_file(path: Path, ema: bool = False) -> Checkpoint:
    """Describe the model in the single file `path` from its header; the weights are not read yet.

    Args:
        ema: take the UNet's averaged weights, which the training kept beside the last ones.

    Raises:
        InputError: a broken file, one that holds something else, keys that nothing explains.
    """
    info, metadata = read_header(path), read_metadata(path)
    family = recognise(path, info)
    prediction, reason = _prediction_type(path, info, metadata, family)
    written = _written(path, metadata)
    components = {}
    for name, table in spell(path, info, family, ema).items():
        config = written.get(name) or _config(path, info, name, table, family, prediction)
        components[name] = Component(name, config, path, (path,), partial(look_up, table))
    check_agreement(components)
    encoder = next(iter(family.encoders))
    folder = find_vocabulary(path, components[encoder].config.get("vocab_size"))
    return Checkpoint(
        path=path,
        index=written.get("index", {}),
        components=components,
        tokenizers={} if folder is None else {"tokenizer": folder},
        scheduler=written.get("scheduler")
        or _scheduler(info, components["unet"].config, family, prediction),
        pad_tokens={name: kind.pad_token for name, (_, kind) in family.encoders.items()},
        notes=(f"{path} is {family.name}; its UNet predicts {prediction} {reason}",),
    )


def _written(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The configurations in a file that `convert` wrote: by component, "scheduler", "index"."""
    try:
        found = parse(metadata.get(CONFIGS, "{}"))
        return {name: dict(config) for name, config in found.items()}
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"{path} is garbled: its {CONFIGS} makes no sense") from None


def _config(
    path: Path, info: Header, name: str, table: Table, family: Family, prediction: str
) -> dict[str, Any]:
    """A component's configuration: what its shapes show, and what its family knows."""
    cuts = [(key, new, cut) for key, parts in table.items() for new, cut in parts.items()]
    shapes = {new: shape_after(cut, info[key].shape) for key, new, cut in cuts}
    try:
        if name == "vae":
            return vae_config(shapes) | {"scaling_factor": family.scaling_factor}
        if name == "unet":
            size = family.v_sample_size if prediction == "v_prediction" else None
            size = family.sample_size if size is None else size
            return unet_config(shapes, family.heads) | {"sample_size": size}
        return text_encoder_config(shapes) | {"hidden_act": family.encoders[name][1].hidden_act}
    except InputError as error:
        raise InputError(f"{path}, {name}: {error}") from None


def _scheduler(
    info: Header, unet: Mapping[str, Any], family: Family, prediction: str
) -> dict[str, Any]:
    """As diffusers takes it for a file without one, with the family's own fields."""
    config = {**SD15, "prediction_type": prediction, "timestep_spacing": "leading"}
    if prediction == "v_prediction":
        config["_class_name"] = "DDIMScheduler"  # SD 2.1's
    if "ztsnr" in info:
        config["rescale_betas_zero_snr"] = True
    if unet.get("time_cond_proj_dim") is not None:
        return {**config, **LCM}
    return {**config, **family.scheduler}


def _prediction_type(
    path: Path, info: Header, metadata: Mapping[str, str], family: Family
) -> tuple[str, str]:
    """What the UNet predicts, and how that is known.

    No key of SD 2.x says it. The v models have larger biases in the last attention of the way up
    (std above 0.09: the rule that ComfyUI and Forge go by); inpainting models predict noise.
    """
    if "v_pred" in info:
        return "v_prediction", "(its key v_pred says so)"
    told = metadata.get("modelspec.prediction_type", "")
    if told.startswith(("v", "eps")):
        return "v_prediction" if told.startswith("v") else "epsilon", "(its metadata say so)"
    if family.prediction_type is not None:
        return family.prediction_type, "(its family does)"
    place, tail = f"{UNET}output_blocks.", ".1.transformer_blocks.0.norm1.bias"
    last = max(indices(info, place, tail), default=0)
    conv_in = info.get(f"{UNET}input_blocks.0.0.weight")
    if not last or conv_in is None or conv_in.shape[1:2] != (4,):
        return "epsilon", "(as those that repaint do)"
    ((_, bias),) = Weights((path,)).read({f"{place}{last}{tail}"})
    guess = "v_prediction" if bias.float().std(correction=0) > 0.09 else "epsilon"
    return guess, "(a guess by its weights)"
