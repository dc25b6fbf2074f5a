"""LoRAs that are written: what is read back, here and by diffusers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from sdcore.adapters import open_lora, write_lora
from sdcore.adapters.deltas import change
from sdcore.errors import InputError
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion
from tests.adapters.conftest import BLOCK, CONVS, TEXT, UNET, factors, rand

Layers = dict[tuple[str, str], dict[str, Tensor]]


def networks(sd: StableDiffusion) -> dict[str, nn.Module]:
    return {name: module for name, module in sd.modules.items() if name != "vae"}


def a_lora(sd: StableDiffusion, dora: bool = False, rank: int = 3, alpha: float = 1.0) -> Layers:
    """Of every linear layer and convolution in the networks' attentions and residual blocks."""
    layers: Layers = {}
    for component, module in networks(sd).items():
        for name, layer in module.named_modules():
            inside = (".attentions.", ".resnets.") if component == "unet" else (".layers.",)
            if not isinstance(layer, nn.Linear | nn.Conv2d) or not any(x in name for x in inside):
                continue
            down, up = factors(layer.weight.shape, rank, len(layers))
            layers[component, name] = {"down": down, "up": up, "alpha": torch.tensor(alpha)}
            if dora:
                m = layer.weight.flatten(1).norm(dim=1) * (1 + rand(len(layer.weight), seed=7))
                layers[component, name]["dora_scale"] = m.view(-1, *(1,) * (layer.weight.ndim - 1))
    return layers


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
@pytest.mark.parametrize("family", ["SD 1.x", "SDXL"])
@pytest.mark.parametrize("dora", [False, True])
def test_what_is_written_is_read_back(
    family_path: Callable[[str], Path], tmp_path: Path, family: str, layout: str, dora: bool
) -> None:
    sd = load(family_path(family), device="cpu")
    layers, path = a_lora(sd, dora), tmp_path / "a.safetensors"
    write_lora(path, layers, networks(sd), layout, {"ss_steps": "7"}, torch.float32)
    back = open_lora(path, networks(sd))
    assert back.unmatched == ()
    assert back.layers.keys() == layers.keys()
    for place, parts in layers.items():
        weight = networks(sd)[place[0]].get_submodule(place[1]).weight
        assert isinstance(weight, Tensor)
        assert torch.equal(change(back.layers[place], weight), change(parts, weight))
    with safe_open(path, "pt") as file:
        assert file.metadata()["ss_steps"] == "7"


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
@pytest.mark.parametrize("family", ["SD 1.x", "SDXL"])
def test_diffusers_reads_the_same(
    family_path: Callable[[str], Path], tmp_path: Path, family: str, layout: str
) -> None:
    """UNet and text encoders, both by its pipeline."""
    diffusers, _ = pytest.importorskip("diffusers"), pytest.importorskip("peft")
    sd = load(family_path(family), device="cpu", engine="plain")
    layers = a_lora(sd)
    if layout == "kohya":  # diffusers spells the convolutions of SDXL's residual blocks its own way
        layers = {p: parts for p, parts in layers.items() if ".resnets." not in p[1]}
    path = tmp_path / "a.safetensors"
    write_lora(path, layers, networks(sd), layout, None, torch.float32)
    pipe = diffusers.DiffusionPipeline.from_pretrained(family_path(family))
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(path)
    new = sd.with_lora(path)  # rounds W + dW once, where PEFT adds dW x to W x
    side = sd.unet.config.sides[0]
    x, context = rand(1, 4, side, side, size=1.0), rand(1, 7, sd.unet.config.cross_attention_dim)
    added, told = {}, {}
    if family == "SDXL":
        added = {"text_embeds": rand(1, 24), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
        told = {"added_cond_kwargs": added}
    with torch.no_grad():
        wanted = pipe.unet(x, 500, context, **told).sample
        got, before = new.unet(x, 500.0, context, **added), sd.unet(x, 500.0, context, **added)
        assert (got - wanted).abs().max() < 5e-5 * wanted.abs().max()
        assert (got - before).abs().max() > 0.01 * before.abs().max()
        ids = torch.tensor([sd.tokenizer("a red boat").ids])
        theirs = pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
        ours = new.text_encoder(ids).hidden_states[-2]
        plain = sd.text_encoder(ids).hidden_states[-2]
        assert (ours - theirs).abs().max() < 5e-5 * theirs.abs().max()
        assert (ours - plain).abs().max() > 0.01 * plain.abs().max()


def test_keys_are_kohyas(
    sd: StableDiffusion, family_path: Callable[[str], Path], tmp_path: Path
) -> None:
    """As its trainer names them: SD 1.x by diffusers' names, SDXL by those of LDM files."""
    path = tmp_path / "a.safetensors"
    down, up = rand(2, 3), rand(3, 2)
    parts = {"down": down, "up": up, "alpha": torch.tensor(2.0)}
    write_lora(path, {("unet", UNET[0]): parts, ("text_encoder", TEXT[0]): parts}, networks(sd))
    with safe_open(path, "pt") as file:
        keys = set(file.keys())
        assert file.get_tensor(f"lora_unet_{UNET[0].replace('.', '_')}.alpha") == 2
        assert file.get_tensor(next(k for k in keys if "lora_down" in k)).dtype == torch.float16
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    text = "lora_te_text_model_encoder_layers_1_self_attn_q_proj"
    ends = ("alpha", "lora_down.weight", "lora_up.weight")
    assert keys == {f"{name}.{end}" for name in (stem, text) for end in ends}
    xl = load(family_path("SDXL"), device="cpu")
    name = "down_blocks.2.attentions.0.transformer_blocks.1.attn2.to_out.0"
    places = [("unet", name), ("text_encoder", TEXT[0]), ("text_encoder_2", TEXT[0])]
    places += [("unet", "mid_block.resnets.0.conv1"), ("unet", "down_blocks.0.downsamplers.0.conv")]
    write_lora(path, dict.fromkeys(places, parts), networks(xl))
    with safe_open(path, "pt") as file:
        assert {key.split(".")[0] for key in file.keys()} == {  # noqa: SIM118
            "lora_unet_input_blocks_5_1_transformer_blocks_1_attn2_to_out_0",
            "lora_unet_middle_block_0_in_layers_2",
            "lora_unet_input_blocks_2_0_op",
            text.replace("lora_te", "lora_te1"),
            text.replace("lora_te", "lora_te2"),
        }


def test_ranks_and_alphas_by_layer(sd: StableDiffusion, tmp_path: Path) -> None:
    """In diffusers' layout, whose header says them by pattern."""
    names = (UNET[0], UNET[2], f"{BLOCK}.attn2.to_q", CONVS[1])
    layers: Layers = {}
    for i, name in enumerate(names):
        down, up = factors(sd.unet.get_submodule(name).weight.shape, 2 + (i == 1), i)
        alpha = torch.tensor(2.0 + 3 * (i == 2))
        layers["unet", name] = {"down": down, "up": up, "alpha": alpha}
    path = tmp_path / "a.safetensors"
    write_lora(path, layers, networks(sd), "diffusers", None, torch.float32)
    back = open_lora(path, networks(sd))
    for place, parts in layers.items():
        weight = sd.unet.get_submodule(place[1]).weight
        assert isinstance(weight, Tensor)
        wanted = change(parts, weight)
        assert (
            change(back.layers[place], weight) - wanted
        ).abs().max() <= 1e-6 * wanted.abs().max()


def test_what_cannot_be_written(sd: StableDiffusion, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    place = ("unet", UNET[0])
    with pytest.raises(InputError, match="unknown layout 'koya': did you mean kohya"):
        write_lora(path, {}, networks(sd), "koya")
    with pytest.raises(InputError, match="is no LoRA: lokr_w1"):
        write_lora(path, {place: {"lokr_w1": rand(2, 2)}}, networks(sd))
    parts = {"down": rand(2, 3), "up": rand(3, 2), "mid": rand(2, 2, 1, 1)}
    with pytest.raises(InputError, match="has a core between"):
        write_lora(path, {place: parts}, networks(sd), "diffusers")
    with pytest.raises(InputError, match="cannot write"):
        write_lora(tmp_path / "none" / "a.safetensors", {}, networks(sd))
    assert list(tmp_path.iterdir()) == []
