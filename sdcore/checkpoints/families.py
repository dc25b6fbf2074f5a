"""The Stable Diffusion families in single files, as data: how to know them, what shapes hide."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdcore.checkpoints.ldm import open_clip_name
from sdcore.checkpoints.names import Rename, text_encoder_key
from sdcore.checkpoints.shapes import heads_of_64
from sdcore.errors import InputError, listed

UNET, VAE = "model.diffusion_model.", "first_stage_model."
SIGMAS = "denoiser.sigmas"
ADDED = f"{UNET}label_emb.0.0.weight"  # where a UNet is told more than the time and the text


@dataclass(frozen=True)
class Encoder:
    """One of the three text encoders."""

    rename: Rename
    hidden_act: str
    pad_token: str
    layers: int | None = None  # what is used of them; None: all
    projected: bool = False  # whether its projection is used


CLIP_L = Encoder(text_encoder_key, "quick_gelu", "<|endoftext|>")
# SD 2.x reads what comes out before the last of OpenCLIP-H's 24 layers.
CLIP_H = Encoder(open_clip_name, "gelu", "!", layers=23)
CLIP_G = Encoder(open_clip_name, "gelu", "!", projected=True)


@dataclass(frozen=True)
class Family:
    """What is known of a model once its family is.

    A family is told by the places of its text encoders, by whether its UNet has label_emb, and
    SDXL-Turbo by what of the published files it alone holds: the table of sigmas.
    """

    name: str
    encoders: Mapping[str, tuple[str, Encoder]]  # component -> prefix of its keys, what it is
    added: bool = False
    turbo: bool = False
    heads: Callable[[int], int] = heads_of_64  # of a block of so many channels
    sample_size: int = 64  # of the latents in training
    v_sample_size: int | None = None  # that of its v-prediction models, where it is another
    scaling_factor: float = 0.18215  # of the VAE
    prediction_type: str | None = "epsilon"  # None: both are usual, and no key tells
    scheduler: Mapping[str, Any] = field(default_factory=dict)


EULER = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
TRAILING = EULER | {"timestep_spacing": "trailing"}
LCM = {"_class_name": "LCMScheduler", "original_inference_steps": 50, "timestep_scaling": 10.0}
SGM = "conditioner.embedders"

FAMILIES = (
    Family(
        "SD 1.x",
        {"text_encoder": ("cond_stage_model.transformer.", CLIP_L)},
        heads=lambda width: 8,
    ),
    Family(
        "SD 2.x",
        {"text_encoder": ("cond_stage_model.model.", CLIP_H)},
        v_sample_size=96,
        prediction_type=None,
    ),
    # SD-Turbo: distilled from 2.1, to be drawn with in a step or two.
    Family(
        "SD 2.x in sgm's form", {"text_encoder": (f"{SGM}.0.model.", CLIP_H)}, scheduler=TRAILING
    ),
    Family(
        "SDXL-Turbo",
        {
            "text_encoder": (f"{SGM}.0.transformer.", CLIP_L),
            "text_encoder_2": (f"{SGM}.1.model.", CLIP_G),
        },
        added=True,
        turbo=True,
        scaling_factor=0.13025,
        scheduler=TRAILING | {"_class_name": "EulerAncestralDiscreteScheduler"},
    ),
    Family(
        "SDXL",
        {
            "text_encoder": (f"{SGM}.0.transformer.", CLIP_L),
            "text_encoder_2": (f"{SGM}.1.model.", CLIP_G),
        },
        added=True,
        sample_size=128,
        scaling_factor=0.13025,
        scheduler=EULER,
    ),
    Family(
        "SDXL refiner",
        {"text_encoder_2": (f"{SGM}.0.model.", CLIP_G)},
        added=True,
        sample_size=128,
        scaling_factor=0.13025,
        scheduler=EULER,
    ),
)

VIDEO = ".time_stack."  # what Stable Video Diffusion has between SD's own layers

# Parts of names that only this kind of file has, the most telling first.
OTHER_KINDS = {
    "a video model": (VIDEO,),
    "a LoRA": ("lora_", ".lora.", "_lora.", ".hada_", ".lokr_"),
    "a ControlNet": ("control_model.", "controlnet_"),
    "a motion module": (".motion_modules.",),
    "an IP-Adapter": ("ip_adapter.",),
    "a Flux model": ("double_blocks.", "single_transformer_blocks."),
    "an SD 3 model": ("joint_blocks.", ".ff_context."),
    "a textual inversion": ("emb_params", "clip_g", "clip_l"),
    "a UNet in the diffusers layout": ("down_blocks.0.resnets.0.time_emb_proj.",),
    "a VAE": ("decoder.conv_in.",),
    "a text encoder": ("text_model.", "resblocks.", "embeddings.token_embedding."),
    "a bare UNet": ("input_blocks.",),
}
# What can be done with some of them all the same.
USES = {
    "a LoRA": "--lora lays it over one",
    "a textual inversion": "--embedding teaches one its word",
    "a UNet in the diffusers layout": "--unet puts it into one",
    "a VAE": "--vae puts it into one",
    "a text encoder": "--text-encoder puts it into one",
    "a bare UNet": "--unet puts it into one",
}


def recognise(path: Path, keys: Collection[str]) -> Family:
    """The family of the model in a file, from its keys alone.

    Raises InputError for a file that holds something else, or less than a whole model.
    """

    def has(prefix: str) -> bool:
        return any(key.startswith(prefix) for key in keys)

    if not has(f"{UNET}input_blocks.") or any(VIDEO in key for key in keys):
        kind = other_kind(keys)
        held = kind or listed("tensors", sorted(keys)) or "nothing"
        use = f": {USES[kind]}" if kind in USES else ""
        raise InputError(f"{path} holds {held}, no Stable Diffusion model{use}")
    found = {prefix for f in FAMILIES for prefix, _ in f.encoders.values() if has(prefix)}
    lacking = [name for name, there in (("VAE", has(VAE)), ("text encoder", found)) if not there]
    if lacking:
        raise InputError(f"{path} is no whole model: it has no {' and no '.join(lacking)}")
    for family in FAMILIES:
        own = {prefix for prefix, _ in family.encoders.values()}
        if family.turbo and (SIGMAS not in keys or "v_pred" in keys):
            continue
        if own == found and family.added == (ADDED in keys):
            return family
    raise InputError(
        f"{path} is of no known family: its text encoders are at {', '.join(sorted(found))}, "
        f"its UNet has {'a' if ADDED in keys else 'no'} label_emb"
    )


def other_kind(keys: Collection[str]) -> str:
    """What a file holds that is no whole model, with its article; "" where nothing tells."""
    for kind, marks in OTHER_KINDS.items():
        if any(mark in key for key in keys for mark in marks):
            return kind
    return ""
