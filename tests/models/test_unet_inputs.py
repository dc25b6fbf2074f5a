"""What a UNet is told, read off its configuration: every family is known by it."""

import pytest

from scripts.families import FAMILIES, PUBLISHED
from sdcore.checkpoints.ldm_families import family_of_unet
from sdcore.models import UNetConfig
from sdcore.models.unet_inputs import REFINER, SDXL, UNetInputs, unet_inputs


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name: str) -> None:
    """From config.json as from what is made of it; the pooled text of these is 24 wide."""
    raw = FAMILIES[name].parts["unet"]
    inputs = unet_inputs(raw)
    fields = {key: value for key, value in raw.items() if key in UNetConfig.__annotations__}
    assert UNetConfig(**fields).inputs == inputs
    assert inputs.repaints == ("inpainting" in name)
    assert inputs.scale_width == (16 if name == "LCM" else None)
    assert inputs.added == ("SDXL" in name)
    encoders = sum(part.startswith("text_encoder") for part in FAMILIES[name].parts)
    numbers = (REFINER if "refiner" in name else SDXL) if inputs.added else None
    assert inputs.likely_numbers(encoders) is numbers
    assert not inputs.added or inputs.numbers(24) is numbers


def test_the_published_ones_tell_without_their_encoders() -> None:
    said = {model: family_of_unet(parts["unet"]).name for model, parts in PUBLISHED.items()}
    assert said["stabilityai/stable-diffusion-xl-base-1.0"] == "SDXL"
    assert said["stabilityai/stable-diffusion-2-1"] == "SD 2.x"
    assert said["runwayml/stable-diffusion-v1-5"] == "SD 1.x"
    refiners = [model for model, name in said.items() if name == "SDXL refiner"]
    assert refiners
    assert all("refiner" in model for model in refiners)


def test_the_numbers_are_counted() -> None:
    assert (SDXL.count, REFINER.count) == (6, 5)
    assert UNetInputs(added=True, vector=100, each=8).numbers(pooled=24) is None


def test_a_configuration_that_makes_no_sense_is_read_all_the_same() -> None:
    raw = {"addition_embed_type": 3, "projection_class_embeddings_input_dim": "2816"}
    raw |= {
        "in_channels": None,
        "out_channels": 4,
        "addition_time_embed_dim": [256],
        "cross_attention_dim": 2.5,
    }
    inputs = unet_inputs(raw)
    assert (inputs.vector, inputs.each, inputs.context, inputs.repaints) == (0, 0, 0, False)
