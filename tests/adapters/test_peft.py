"""Adapters that PEFT makes and writes, each network's output against PEFT's own."""

from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import families
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion
from tests.adapters.conftest import Save, factors, flat, rand
from tests.adapters.test_lora_names import TRANSFORMER, ldm_layers

diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")

UNET = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "conv1", "net.0.proj"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
LORA = {"r": 3, "lora_alpha": 6, "init_lora_weights": False}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("LoraConfig", LORA),
    "alpha by layer": ("LoraConfig", LORA | {"alpha_pattern": {"to_q": 1, "q_proj": 1}}),
    "rank by layer": ("LoraConfig", LORA | {"rank_pattern": {"to_q": 1, "q_proj": 1}}),
    "rsLoRA": ("LoraConfig", LORA | {"use_rslora": True}),
    "DoRA": ("LoraConfig", LORA | {"use_dora": True}),
    "LoHa": ("LoHaConfig", {"r": 3, "alpha": 6, "init_weights": False}),
    "LoHa, Tucker": (
        "LoHaConfig",
        {"r": 3, "alpha": 6, "init_weights": False, "use_effective_conv2d": True},
    ),
    "LoKr": ("LoKrConfig", {"r": 3, "alpha": 6, "init_weights": False}),
    "LoKr, both factors": (
        "LoKrConfig",
        {"r": 1, "alpha": 2, "init_weights": False, "decompose_both": True},
    ),
    "LoKr, Tucker": (
        "LoKrConfig",
        {"r": 1, "alpha": 2, "init_weights": False, "use_effective_conv2d": True},
    ),
}


def adapted(network: torch.nn.Module, kind: str, targets: list[str], folder: Path) -> Any:
    name, options = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = peft.get_peft_model(network, getattr(peft, name)(target_modules=targets, **options))
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_magnitude" in key:  # else DoRA begins as the weight's own norm
                    parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
                elif parameter.requires_grad:
                    parameter.mul_(0.3 / parameter.std())
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_unet(
    sd: StableDiffusion, tiny_path: Path, tmp_path: Path, kind: str, merged: bool
) -> None:
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel.from_pretrained(tiny_path / "unet").eval()
    x, context = rand(2, 4, 4, 4, size=1.0), rand(2, 77, 16, seed=1, size=1.0)
    before = network(x, 500, context).sample
    wanted = adapted(network, kind, UNET, tmp_path)(x, 500, context).sample
    new = sd.with_lora(tmp_path, merged=merged)
    got = new.unet(x, 500.0, context)
    assert new.loras[0].unmatched == ()
    assert (wanted - before).abs().max() > 0.05
    # Beside the layers is PEFT's own order of sums; merged, W + dW is rounded once more.
    assert (got - wanted).abs().max() / wanted.abs().max() < (5e-5 if merged else 5e-6)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_text_encoder(sd: StableDiffusion, tiny_path: Path, tmp_path: Path, kind: str) -> None:
    from transformers import CLIPTextModel

    network = CLIPTextModel.from_pretrained(tiny_path / "text_encoder").eval()
    ids = torch.tensor([sd.tokenizer("a red boat").ids])
    before = network(ids).last_hidden_state
    wanted = adapted(network, kind, TEXT, tmp_path)(ids).last_hidden_state
    new = sd.with_lora(tmp_path)
    assert new.loras[0].unmatched == ()
    assert (wanted - before).abs().max() > 0.05
    assert (new.text_encoder(ids).last - wanted).abs().max() / wanted.abs().max() < 1e-5


@pytest.mark.parametrize("family", ["SD 1.x", "SDXL"])
def test_diffusers_pipeline_with_a_file_of_kohyas(family: str, tmp_path: Path, save: Save) -> None:
    """The same file through both loaders, several adapters at once, to the last latents."""
    folder = families.write(tmp_path / "model", families.FAMILIES[family])
    sd = load(folder, device="cpu")
    spelt = ldm_layers(sd.unet) if family == "SDXL" else {}
    short = {own: ldm for ldm, own in spelt.items()}
    encoders = {"lora_te1": "text_encoder", "lora_te2": "text_encoder_2"}
    if family != "SDXL":
        encoders = {"lora_te": "text_encoder"}

    def write(name: str, rank: int, alpha: float) -> Path:
        tensors = {}

        def add(key: str, layer: Any) -> None:
            down, up = factors(layer.weight.shape, rank, len(tensors) + rank)
            tensors.update({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up})
            tensors[f"{key}.alpha"] = torch.tensor(alpha)

        for own, layer in sd.unet.named_modules():
            if ".attentions." in own and own.endswith(TRANSFORMER):
                add(f"lora_unet_{flat(short.get(own, own))}", layer)
        for prefix, component in encoders.items():
            for own, layer in getattr(sd, component).named_modules():
                if own.endswith("fc1"):  # for the others see the next test
                    add(f"{prefix}_{flat(own)}", layer)
        return save(tensors, name)

    paths = write("a", 2, 1.0), write("b", 3, 6.0)
    pipe = getattr(diffusers, families.FAMILIES[family].pipeline).from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    for name, path in zip("ab", paths, strict=True):
        pipe.load_lora_weights(str(path), adapter_name=name)
    pipe.set_adapters(["a", "b"], [0.8, -0.4])
    generator = [torch.Generator().manual_seed(1)]
    how = {"height": 64, "width": 64, "num_inference_steps": 3, "guidance_scale": 5.0}
    wanted = pipe("a red boat", generator=generator, output_type="latent", **how).images
    for merged in (True, False):
        new = sd.with_lora(paths[0], 0.8, merged=merged).with_lora(paths[1], -0.4, merged=merged)
        assert not any(lora.unmatched for lora in new.loras)
        run = new.prepare("a red boat", steps=3, cfg=5.0, width=64, height=64, seeds=[1])
        got = [step.x_next for step in run][-1].detach() * run.plan.end_scale
        assert (got - wanted).abs().max() / wanted.abs().max() < 1e-5


@torch.no_grad()
def test_diffusers_passes_over_a_text_encoders_attention(tmp_path: Path, save: Save) -> None:
    """diffusers 0.42.1 with transformers 5.23 drops these layers of kohya's files, with a line."""
    folder = families.write(tmp_path / "model", families.FAMILIES["SD 1.x"])
    sd = load(folder, device="cpu")
    tensors = {}
    for own, layer in sd.text_encoder.named_modules():
        if own.endswith(("q_proj", "fc1")):
            down, up = factors(layer.weight.shape, 2, len(tensors))
            key = f"lora_te_{flat(own)}"
            tensors.update({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up})
    half = {key: tensor for key, tensor in tensors.items() if "fc1" in key}
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipe.load_lora_weights(str(save(tensors, "whole")))
    ids = torch.tensor([sd.tokenizer("a red boat").ids])
    theirs = pipe.text_encoder(ids).last_hidden_state
    whole, part = (
        sd.with_lora(save(t, n)).text_encoder(ids).last for n, t in (("a", tensors), ("b", half))
    )
    assert (part - theirs).abs().max() < 1e-5
    assert (whole - theirs).abs().max() > 0.01
