"""What a LoRA file says of itself, for interfaces that show it and choose the family by it."""

from __future__ import annotations

from sdcore.checkpoints import Checkpoint
from sdcore.checkpoints.convert import family_of, prediction_type
from sdcore.version import VERSION

# kohya's name of the base model, and modelspec's.
BASES = {
    "SD 1.x": ("sd_v1", "stable-diffusion-v1"),
    "SD 2.x": ("sd_v2", "stable-diffusion-v2-512"),
    "SD 2.x, v": ("sd_v2_v", "stable-diffusion-v2-768-v"),
    "SDXL": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
    "SDXL refiner": ("sdxl_refiner", "stable-diffusion-xl-v1-refiner"),
}


def lora_notes(checkpoint: Checkpoint, rank: int) -> dict[str, str]:
    """kohya's `ss_*` core and modelspec 1.0.1, for a LoRA of this rank and alpha."""
    family, v = family_of(checkpoint).name, prediction_type(checkpoint) == "v_prediction"
    base, architecture = BASES["SD 2.x, v" if family == "SD 2.x" and v else family]
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.prediction_type": "v" if v else "epsilon",
        "ss_base_model_version": base,
        "ss_v2": str(family == "SD 2.x"),
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(rank)),
        "sdcore": VERSION,
    }
