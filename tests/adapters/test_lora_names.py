"""Every layer of the published networks under the names that kohya's trainer gives it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scripts import families
from sdcore.adapters.names import places
from sdcore.checkpoints.load import NoInit
from sdcore.loading import load
from sdcore.models import TextEncoder, TextEncoderConfig, UNet, UNetConfig
from tests.adapters.conftest import Save, factors, flat, latents
from tests.checkpoints.ldm_writer import ldm_unet

SD15 = "runwayml/stable-diffusion-v1-5"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
TRANSFORMER = (".proj_in", ".proj_out", ".to_q", ".to_k", ".to_v", ".to_out.0", ".proj", ".net.2")
CLIP = ("_proj", ".fc1", ".fc2")


def network(model: str, part: str) -> nn.Module:
    raw = families.PUBLISHED[model][part]
    with torch.device("meta"), NoInit():
        if part == "unet":
            return UNet(UNetConfig.from_dict(raw))
        return TextEncoder(TextEncoderConfig.from_dict(raw))


def ldm_layers(unet: UNet) -> dict[str, str]:
    """A layer's LDM name -> its own, found by walking the original's loops, not by the rule."""
    config = unet.config
    marked = {key: torch.tensor(n) for n, key in enumerate(unet.state_dict())}
    names = list(marked)
    walked = ldm_unet(marked, len(config.block_out_channels), config.layers_per_block)
    return {
        key.removeprefix("model.diffusion_model.").removesuffix(".weight"): names[int(n)][:-7]
        for key, n in walked.items()
        if key.endswith(".weight")
    }


@pytest.mark.parametrize(("model", "count"), [(SD15, 192), (SDXL, 722)])
def test_every_layer_of_a_unet(model: str, count: int) -> None:
    unet = network(model, "unet")
    assert isinstance(unet, UNet)
    table, walked = places({"unet": unet}), ldm_layers(unet)
    for ldm, own in walked.items():
        assert table[f"lora_unet_{flat(ldm)}"] == ("unet", own)
        assert table[f"diffusion_model.{ldm}"] == ("unet", own)
        assert table[f"lora_unet_{flat(own)}"] == ("unet", own)
        assert table[f"lycoris_{flat(own)}"] == ("unet", own)
        assert table[f"unet.{own}"] == ("unet", own)
    # What the trainer takes unless it is told: 192 layers of SD 1.x, 722 of SDXL.
    layers = [n for n in walked.values() if ".attentions." in n and n.endswith(TRANSFORMER)]
    assert len(layers) == count


def test_every_layer_of_the_text_encoders() -> None:
    parts = {name: network(SDXL, name) for name in ("text_encoder", "text_encoder_2")}
    table = places(parts)
    for prefix, name, count in (
        ("lora_te1", "text_encoder", 72),
        ("lora_te2", "text_encoder_2", 192),
    ):
        layers = [
            n
            for n, m in parts[name].named_modules()
            if isinstance(m, nn.Linear) and n.endswith(CLIP) and n.startswith("text_model")
        ]
        assert len(layers) == count
        assert all(table[f"{prefix}_{flat(n)}"] == (name, n) for n in layers)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.write(tmp_path_factory.mktemp("family"), families.FAMILIES["SDXL"])


def test_sdxl_under_both_names(sdxl: Path, save: Save) -> None:
    sd = load(sdxl, device="cpu")
    assert sd.text_encoder_2 is not None
    kohya: dict[str, Tensor] = {}
    diffusers: dict[str, Tensor] = {}

    def add(short: str, long: str, layer: nn.Module) -> None:
        assert isinstance(layer.weight, Tensor)
        down, up = factors(layer.weight.shape, 2, len(kohya))
        kohya.update({f"{short}.lora_down.weight": down, f"{short}.lora_up.weight": up})
        diffusers.update({f"{long}.lora_A.weight": down, f"{long}.lora_B.weight": up})

    for ldm, own in ldm_layers(sd.unet).items():
        if ".attentions." in own and own.endswith(TRANSFORMER):
            add(f"lora_unet_{flat(ldm)}", f"unet.{own}", sd.unet.get_submodule(own))
    for prefix, name in (("lora_te1", "text_encoder"), ("lora_te2", "text_encoder_2")):
        own = "text_model.encoder.layers.0.self_attn.q_proj"
        add(f"{prefix}_{flat(own)}", f"{name}.{own}", getattr(sd, name).get_submodule(own))
    one, other = sd.with_lora(save(kohya, "a"), 0.5), sd.with_lora(save(diffusers, "b"), 0.5)
    assert not one.loras[0].unmatched
    assert not other.loras[0].unmatched
    assert one.text_encoder_2 is not sd.text_encoder_2
    assert torch.equal(latents(one), latents(other))
    assert (latents(one) - latents(sd)).abs().max() > 1e-3
