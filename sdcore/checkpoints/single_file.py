"""A single file, .safetensors or pickled, described as a folder is: a whole file is its parts."""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sdcore.checkpoints.checkpoint import Checkpoint, Component, check_agreement
from sdcore.checkpoints.key_tables import (
    PREFIXES,
    Header,
    Part,
    Table,
    encoder_reads,
    look_up,
    part_at,
)
from sdcore.checkpoints.kinds import USES, VIDEO, other_kind
from sdcore.checkpoints.ldm_families import EDM, LCM, UNET, VAE, LDMFamily, recognise
from sdcore.checkpoints.read import Weights, read_header, read_metadata
from sdcore.checkpoints.shapes import indices
from sdcore.checkpoints.vocabulary import find_vocabulary
from sdcore.errors import InputError, listed
from sdcore.models.unet_inputs import unet_inputs
from sdcore.schedulers.config import SD15
from sdcore.strict_json import parse

CONFIGS = "sdcore.configs"  # of the metadata: what shapes do not show, from the model's folder
MIN_EMA_KEYS = 100  # "emaonly" files keep two counters of it and no weights
EDM_SIGMAS = ("edm_vpred.sigma_min", "edm_vpred.sigma_max")
EDM_LATENTS = ("edm_mean", "edm_std")
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in ("vae", "text_encoder")}
OPTIONS["text_encoder_2"] = "--text-encoder-2"

# What published files hold beside weights: tables and counters of the training, and marks for
# other programs.
TRAINING_TABLES = re.compile(
    r"""
    betas | alphas_cumprod | alphas_cumprod_prev | sqrt_alphas_cumprod
    | sqrt_one_minus_alphas_cumprod | log_one_minus_alphas_cumprod | sqrt_recip_alphas_cumprod
    | sqrt_recipm1_alphas_cumprod | posterior_variance | posterior_log_variance_clipped
    | posterior_mean_coef1 | posterior_mean_coef2 | logvar | denoiser\.sigmas
    | model_ema\.decay | model_ema\.num_updates | v_pred | ztsnr
    | edm_vpred\.sigma_(min|max) | edm_mean | edm_std
    """,
    re.VERBOSE,
)
# What some hold of another network or of the training: passed over, and told.
LEFTOVERS = re.compile(
    r"first_stage_model\.(?:loss|model_ema)|model_ema|embedding_manager|safety_checker"
    r"|(?:cond_stage_model|conditioner)\.(?:.*?\.)?(?:vision_model|visual_projection|visual)"
)


def open_file(path: Path, ema: bool = False, given: Collection[str] = ()) -> Checkpoint:
    """Describe the model in the single file `path` from its header; the weights are not read yet.

    Args:
        ema: take the UNet's averaged weights, which the training kept beside the last ones.
        given: components that come from elsewhere: the file may lack these.

    Raises:
        InputError: a broken file, one that holds something else or less, keys that nothing
            explains.
    """
    info, metadata = read_header(path), read_metadata(path)
    unet = _unet(path, info, given)
    family = recognise(path, info, unet)
    parts = {"unet": unet} | dict(_others(info, family))
    missing = [name for name in ("vae", *family.encoders) if name not in parts]
    needed = [name for name in missing if name not in given]
    if needed:
        raise InputError(_lacking(path, needed, family.name))
    averaged = _averaged(path, info, ema)
    passed_over = _leftovers(path, info, family, parts.values(), averaged.values())
    prediction, reason = _prediction_type(path, info, metadata, family, unet)
    saved = saved_configs(path, metadata)
    components = {}
    for name, part in parts.items():
        config = saved.get(name) or part.config(path, name) | _unseen(name, family, prediction)
        table = part.table
        if name == "unet" and ema:
            table: Table = {averaged.get(key, key): cuts for key, cuts in table.items()}
        components[name] = Component(name, config, path, (path,), partial(look_up, table))
    check_agreement(components)
    words = {str(word): int(n) for word, n in saved.get("added_words", {}).items()}
    encoder = next(filter(components.__contains__, family.encoders), None)
    size = None if encoder is None else components[encoder].config.get("vocab_size")
    folder = find_vocabulary(path, size - len(words) if isinstance(size, int) else None)
    return Checkpoint(
        path=path,
        index=saved.get("index", {}),
        components=components,
        tokenizers={} if folder is None else {"tokenizer": folder},
        scheduler=_edm(path, info)
        or saved.get("scheduler")
        or _scheduler(info, components["unet"].config, family, prediction),
        pad_tokens={name: kind.pad_token for name, (_, kind) in family.encoders.items()},
        notes=(
            f"{path} is {family.name}; its UNet predicts {prediction} {reason}",
            *passed_over,
        ),
        lacking={name: _sketch(path, name, family, prediction) for name in missing},
        added_words=words,
    )


def _unet(path: Path, info: Header, given: Collection[str]) -> Part:
    """The UNet in the file. Raises InputError where there is none, or nothing but one."""
    video = any(VIDEO in key for key in info)
    whole = part_at(info, "unet", UNET)
    if whole is not None and not video:
        return whole
    kind = other_kind(info)
    alone = kind in ("a UNet in the diffusers layout", "a bare UNet")
    if alone and "vae" in given and any(name.startswith("text_encoder") for name in given):
        parts = (part_at(info, "unet", prefix) for prefix in PREFIXES["unet"])
        return next(part for part in parts if part is not None)
    held = kind or listed("tensors", sorted(info)) or "nothing"
    use = f": {USES[kind]}" if kind in USES else ""
    use += ", or --vae and --text-encoder make a model of it" if alone else ""
    raise InputError(f"{path} holds {held}, no Stable Diffusion model{use}")


def _others(info: Header, family: LDMFamily) -> Iterator[tuple[str, Part]]:
    """The VAE and the text encoders of a file, those that it holds, by component."""
    vae = part_at(info, "vae", VAE)
    if vae is not None:
        yield "vae", vae
    for name, (prefix, encoder) in family.encoders.items():
        used = encoder_reads(encoder.layers, encoder.projected)
        part = part_at(info, "text_encoder", prefix, used)
        if part is not None:
            yield name, part


def lacking_line(checkpoint: Checkpoint) -> str:
    """What a file lacks for a model, and the options that give it."""
    return _lacking(checkpoint.path, tuple(checkpoint.lacking), "a model")


def _lacking(path: Path, names: Collection[str], what: str) -> str:
    words = " and no ".join(n.replace("_", " ").replace("vae", "VAE") for n in names)
    options = " and ".join(f"{OPTIONS[n]} FILE" for n in names)
    gives = "give" if len(names) > 1 else "gives"
    return f"{path} is {what} with no {words}: {options} {gives} it one"


def _averaged(path: Path, info: Header, ema: bool) -> dict[str, str]:
    """Key of a UNet's weight -> key of its average."""
    unet = (key for key in info if key.startswith(UNET))
    averaged = {key: twin for key in unet if (twin := _ema_key(key)) in info}
    if ema and len(averaged) < MIN_EMA_KEYS:
        raise InputError(f"{path} holds no averaged (EMA) weights")
    return averaged


def _ema_key(key: str) -> str:
    """Where the average of a UNet's weight lies: its name has lost its dots.

    >>> _ema_key("model.diffusion_model.out.2.bias")
    'model_ema.diffusion_modelout2bias'
    """
    return "model_ema." + key.removeprefix("model.").replace(".", "")


def _leftovers(
    path: Path,
    info: Header,
    family: LDMFamily,
    parts: Collection[Part],
    averaged: Collection[str],
) -> tuple[str, ...]:
    """A line for what is passed over. Raises InputError for keys that nothing explains."""
    prefixes = tuple(part.prefix for part in parts)
    unknown = [key for part in parts for key in part.unknown]
    unknown += [key for key in info if not key.startswith(prefixes)]
    known = set(averaged)
    unknown = [key for key in unknown if key not in known and not TRAINING_TABLES.fullmatch(key)]
    counts: dict[str, int] = {}
    for key in info:
        match = LEFTOVERS.match(key)
        if match is not None and key not in known and not TRAINING_TABLES.fullmatch(key):
            counts[match[0]] = counts.get(match[0], 0) + 1
    strangers = [key for key in unknown if LEFTOVERS.match(key) is None]
    if strangers:
        raise InputError(
            f"{path} is more than a {family.name} model: {listed('unknown keys', strangers)}"
        )
    names = ", ".join(f"{name} ({count} tensors)" for name, count in counts.items())
    return (f"{path} also holds what is not read: {names}",) if counts else ()


def _sketch(path: Path, name: str, family: LDMFamily, prediction: str) -> Component:
    """What the family knows of a component that the file does not hold."""
    config = _unseen(name, family, prediction)
    if name in family.encoders:
        encoder = family.encoders[name][1]
        kind = "CLIPTextModelWithProjection" if encoder.projected else "CLIPTextModel"
        config |= {"architectures": [kind]}
        if encoder.layers is not None:
            config["num_hidden_layers"] = encoder.layers
    return Component(name, config, path, (), partial(look_up, {}))


def saved_configs(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The configurations in a file that `convert` wrote: by component; "scheduler", "index",
    "added_words"."""
    try:
        saved = parse(metadata.get(CONFIGS, "{}"))
        return {name: dict(config) for name, config in saved.items()}
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"{path} is garbled: its {CONFIGS} makes no sense") from None


def _unseen(name: str, family: LDMFamily, prediction: str) -> dict[str, Any]:
    """What of a component's configuration no shape shows, and its family knows."""
    if name == "vae":
        return {"scaling_factor": family.scaling_factor}
    if name == "unet":
        size = family.v_sample_size if prediction == "v_prediction" else None
        return {"sample_size": family.sample_size if size is None else size}
    return {"hidden_act": family.encoders[name][1].hidden_act}


def _edm(path: Path, info: Header) -> dict[str, Any] | None:
    """The scheduler of CosXL or Playground v2.5, which keys of theirs tell; None for others."""
    if EDM_SIGMAS[1] in info:
        low, high = (_number(path, info, key) for key in EDM_SIGMAS)
        return {**EDM, "sigma_min": low, "sigma_max": high, "prediction_type": "v_prediction"}
    if all(key in info for key in EDM_LATENTS):
        return {**EDM, "sigma_data": 0.5, "_class_name": "EDMDPMSolverMultistepScheduler"}
    return None


def _scheduler(
    info: Header, unet: Mapping[str, Any], family: LDMFamily, prediction: str
) -> dict[str, Any]:
    """As diffusers takes it for a file without one, with the family's own fields."""
    config = {**SD15, "prediction_type": prediction, "timestep_spacing": "leading"}
    if prediction == "v_prediction":
        config["_class_name"] = "DDIMScheduler"  # SD 2.1's
    if "ztsnr" in info:
        config["rescale_betas_zero_snr"] = True
    if unet_inputs(unet).scale_width is not None:
        return {**config, **LCM}
    return {**config, **family.scheduler}


def _prediction_type(
    path: Path, info: Header, metadata: Mapping[str, str], family: LDMFamily, unet: Part
) -> tuple[str, str]:
    """What the UNet predicts, and how that is known.

    No key of SD 2.x says it. The v models have larger biases in the last attention of the way up
    (std above 0.09: the rule that ComfyUI and Forge go by); inpainting models predict noise.
    """
    if EDM_SIGMAS[1] in info:
        return "v_prediction", "(its key edm_vpred.sigma_max says so)"
    if "v_pred" in info:
        return "v_prediction", "(its key v_pred says so)"
    stated = metadata.get("modelspec.prediction_type", "")
    if stated.startswith(("v", "eps")):
        return "v_prediction" if stated.startswith("v") else "epsilon", "(its metadata say so)"
    if family.prediction_type is not None:
        return family.prediction_type, "(its family does)"
    place, tail = f"{unet.prefix}output_blocks.", ".1.transformer_blocks.0.norm1.bias"
    last = max(indices(info, place, tail), default=0)
    if unet.shapes.get("conv_in.weight", ())[1:2] != (4,) or not last:
        return "epsilon", "(as those that repaint do)"
    ((_, bias),) = Weights((path,)).read({f"{place}{last}{tail}"})
    guess = "v_prediction" if bias.float().std(correction=0) > 0.09 else "epsilon"
    return guess, "(a guess by its weights)"


def _number(path: Path, info: Header, key: str) -> float | None:
    """The one number under a key; None where there is none."""
    if key not in info or info[key].count != 1:
        return None
    ((_, tensor),) = Weights((path,)).read({key})
    return float(tensor.double().flatten()[0])
