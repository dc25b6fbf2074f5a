"""The Stable Diffusion families in single files, as data: how to know them, what shapes hide."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdcore.checkpoints.key_tables import Part
from sdcore.checkpoints.ldm import open_clip_name
from sdcore.checkpoints.parameter_names import Rename, text_encoder_key
from sdcore.checkpoints.shapes import unet_config
from sdcore.errors import InputError
from sdcore.models.unet_inputs import unet_inputs

UNET, VAE = "model.diffusion_model.", "first_stage_model."
SIGMAS = "denoiser.sigmas"
ADDED = f"{UNET}label_emb.0.0.weight"  # where a UNet is told more than the time and the text


@dataclass(frozen=True)
class LDMEncoder:
    """One of the three text encoders."""

    rename: Rename
    hidden_act: str
    pad_token: str
    layers: int | None = None  # what is used of them; None: all
    projected: bool = False  # whether its projection is used


CLIP_L = LDMEncoder(text_encoder_key, "quick_gelu", "<|endoftext|>")
# SD 2.x reads what comes out before the last of OpenCLIP-H's 24 layers.
CLIP_H = LDMEncoder(open_clip_name, "gelu", "!", layers=23)
CLIP_G = LDMEncoder(open_clip_name, "gelu", "!", projected=True)


@dataclass(frozen=True)
class LDMFamily:
    """What is known of a model once its family is.

    A family is told by the places of its text encoders, by whether its UNet has label_emb, and
    SDXL-Turbo by what of the published files it alone holds: the table of sigmas.
    """

    name: str
    encoders: Mapping[str, tuple[str, LDMEncoder]]  # component -> prefix of its keys, what it is
    added: bool = False
    turbo: bool = False
    sample_size: int = 64  # of the latents in training
    v_sample_size: int | None = None  # that of its v-prediction models, where it is another
    scaling_factor: float = 0.18215  # of the VAE
    prediction_type: str | None = "epsilon"  # None: both are usual, and no key tells
    scheduler: Mapping[str, Any] = field(default_factory=dict)


EULER = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
TRAILING = EULER | {"timestep_spacing": "trailing"}
LCM = {"_class_name": "LCMScheduler", "original_inference_steps": 50, "timestep_scaling": 10.0}
# CosXL and Playground v2.5: continuous noise levels (Karras et al. 2022, arXiv 2206.00364).
EDM = {"_class_name": "EDMEulerScheduler", "sigma_data": 1.0}
SGM = "conditioner.embedders"

FAMILIES = (
    LDMFamily(
        "SD 1.x",
        {"text_encoder": ("cond_stage_model.transformer.", CLIP_L)},
    ),
    LDMFamily(
        "SD 2.x",
        {"text_encoder": ("cond_stage_model.model.", CLIP_H)},
        v_sample_size=96,
        prediction_type=None,
    ),
    # SD-Turbo: distilled from 2.1, to be drawn with in a step or two.
    LDMFamily(
        "SD 2.x in sgm's form", {"text_encoder": (f"{SGM}.0.model.", CLIP_H)}, scheduler=TRAILING
    ),
    LDMFamily(
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
    LDMFamily(
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
    LDMFamily(
        "SDXL refiner",
        {"text_encoder_2": (f"{SGM}.0.model.", CLIP_G)},
        added=True,
        sample_size=128,
        scaling_factor=0.13025,
        scheduler=EULER,
    ),
)


def recognise(path: Path, keys: Collection[str], unet: Part) -> LDMFamily:
    """The family of the model in a file, from its keys alone; by its UNet where it has no encoder.

    Raises InputError for one of no known family.
    """
    places = {prefix for family in FAMILIES for prefix, _ in family.encoders.values()}
    places = {prefix for prefix in places if any(key.startswith(prefix) for key in keys)}
    if not places:
        return family_of_unet(unet_config(unet.shapes))
    for family in FAMILIES:
        prefixes = {prefix for prefix, _ in family.encoders.values()}
        if family.turbo and (SIGMAS not in keys or "v_pred" in keys):
            continue
        if prefixes == places and family.added == (ADDED in keys):
            return family
    raise InputError(
        f"{path} is of no known family: its text encoders are at {', '.join(sorted(places))}, "
        f"its UNet has {'a' if ADDED in keys else 'no'} label_emb"
    )


def family_of_unet(config: Mapping[str, Any], encoders: int | None = None) -> LDMFamily:
    """The family of a UNet by its configuration. encoders: how many text encoders the model has."""
    numbers = unet_inputs(config).likely_numbers(encoders)
    if numbers is None:
        name = "SD 2.x" if config.get("use_linear_projection") else "SD 1.x"
    else:
        name = "SDXL" if numbers.encoders > 1 else "SDXL refiner"
    return next(family for family in FAMILIES if family.name == name)


def edm_refusal(scheduler: Mapping[str, Any], vae: Mapping[str, Any]) -> str:
    """Why a model of the EDM kind is not drawn with; "" for all others."""
    name = str(scheduler.get("_class_name", ""))
    if not name.startswith("EDM") and vae.get("latents_mean") is None:
        return ""
    which = name if name.startswith("EDM") else "its VAE's latents have a mean of their own"
    return (
        f"it is of the EDM kind ({which}), as CosXL and Playground v2.5 are: its noise levels are "
        "continuous and not those of Stable Diffusion's table, and it is not drawn here"
    )
