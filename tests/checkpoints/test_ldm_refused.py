"""Single files that are something else than a model, or broken: one line says what."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdcore.checkpoints import open_file
from sdcore.errors import InputError
from tests.checkpoints.twins import Twins, modules, save


def one_line(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        modules(open_file(path))
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    return line


def test_keys_that_nothing_explains_are_named(twins: Twins) -> None:
    for key in ("stranger.weight", "model.diffusion_model.stranger", "first_stage_model.stranger"):
        line = one_line(twins.write("more", {key: torch.ones(1)}))
        assert f"1 unknown keys: {key}" in line
    key = "model.diffusion_model.input_blocks.1.1.stranger.weight"
    assert f"unet: 1 unknown: {key}" in one_line(twins.write("more", {key: torch.ones(1)}))
    key = "model.diffusion_model.out.02.bias"
    assert "under two names" in one_line(twins.write("more", {key: torch.ones(4)}))


def test_missing_and_misshapen_keys_are_named(sd1: Twins, sd2: Twins) -> None:
    gone: dict[str, Tensor | None] = {"model.diffusion_model.out.2.bias": None}
    assert "unet: 1 missing: conv_out.bias" in one_line(sd1.write("less", gone))
    narrow = {"first_stage_model.encoder.mid.attn_1.q.weight": torch.ones(4, 4, 1, 1)}
    assert "1 of another shape: encoder.mid_block" in one_line(sd1.write("narrow", narrow))
    for shape in ((), (7,), (7, 128), (2, 128)):
        fused = {"cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight": shape}
        broken = sd2.write("fused", {k: torch.ones(s) for k, s in fused.items()})
        assert "of another shape: text_model.encoder.layers.0" in one_line(broken)
    for key in ("input_blocks.0.0.weight", "middle_block.1.transformer_blocks.0.attn2.to_k.weight"):
        full = f"model.diffusion_model.{key}"
        assert "missing" in one_line(sd1.write("less", {full: None}))
        odd = one_line(sd1.write("odd", {full: torch.ones(3)}))
        assert "weight is no matrix" in odd or "of another shape" in odd


def test_context_of_another_width(sd1: Twins, sd2: Twins) -> None:
    old = {k: None for k in sd1.tensors if k.startswith("model.")}
    other = {k: t for k, t in sd2.tensors.items() if k.startswith("model.")}
    for key in other:
        if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            other[key] = other[key][:, :96]
    assert "says cross_attention_dim 96" in one_line(sd1.write("mixed", old | other))


@pytest.mark.parametrize("keep", [0, 7, 100, 100_000, -4])
def test_truncated_files(sd1: Twins, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(sd1.file.read_bytes()[:keep])
    line = one_line(path)
    assert "truncated" in line or "neither a safetensors nor a torch file" in line


USES = {
    "a LoRA": "lora",
    "a VAE": "vae",
    "a text encoder": "text-encoder",
    "a UNet in the diffusers layout": "unet",
    "a textual inversion": "embedding",
}


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], "a LoRA"),
        (["unet.down_blocks.0.attentions.0.to_k.lora_A.weight"], "a LoRA"),
        (["lora_te1_text_model_encoder_layers_0_mlp_fc1.hada_w1_a"], "a LoRA"),
        (["control_model.input_blocks.0.0.weight"], "a ControlNet"),
        (["first_stage_model.decoder.conv_in.weight"], "a VAE"),
        (["decoder.conv_in.weight", "encoder.conv_in.weight"], "a VAE"),
        (["text_model.embeddings.token_embedding.weight"], "a text encoder"),
        (["embeddings.token_embedding.weight"], "a text encoder"),
        (["model.diffusion_model.input_blocks.1.0.time_stack.x"], "a video model"),
        (["down_blocks.0.motion_modules.0.x.weight"], "a motion module"),
        (["single_transformer_blocks.0.attn.to_q.weight"], "a Flux model"),
        (["down_blocks.0.resnets.0.time_emb_proj.bias"], "a UNet in the diffusers layout"),
        (["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"], "a Flux model"),
        (["model.diffusion_model.joint_blocks.0.x.weight"], "an SD 3 model"),
        (["emb_params"], "a textual inversion"),
        (["<cat>"], "1 tensors: <cat>"),
        ([], "nothing"),
    ],
)
def test_files_that_hold_something_else_say_what(
    keys: list[str], kind: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "x.safetensors", {key: torch.ones(2, 2) for key in keys})
    line, _, use = one_line(path).partition(": --")
    assert line == f"{path} holds {kind}, no Stable Diffusion model"
    assert use.partition(" ")[0] == USES.get(kind, "")


def test_less_than_a_whole_model(sd1: Twins) -> None:
    lacks = {"first_stage_model.": ("VAE", "vae")}
    lacks["cond_stage_model."] = ("text encoder", "text-encoder")
    for prefix, (what, option) in lacks.items():
        less = sd1.write("less", {k: None for k in sd1.tensors if k.startswith(prefix)})
        assert one_line(less) == f"{less} is SD 1.x with no {what}: --{option} FILE gives it one"
    both = sd1.write("both", {"conditioner.embedders.0.model.ln_final.bias": torch.ones(1)})
    assert "of no known family" in one_line(both)
