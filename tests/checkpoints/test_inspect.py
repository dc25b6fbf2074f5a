"""What a file or a folder holds, said from names and shapes."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from sdcore.cli import main
from sdcore.errors import InputError
from sdcore.inspection import inspect
from tests.checkpoints.test_ldm_whole import WHOLE, whole_file, write_hollow
from tests.checkpoints.twins import Twins, save


@pytest.mark.parametrize("name", ["SD 1.5 inpainting", "SDXL"])
def test_published_files(name: str, tmp_path: Path) -> None:
    model, prefixes, count, counts = WHOLE[name]
    path = write_hollow(tmp_path / "whole.safetensors", whole_file(model, prefixes))
    report = inspect(path)
    assert report["kind"] == "model"
    assert report["family"] == ("SDXL" if "SDXL" in name else "SD 1.x")
    assert report["tensors"] == count
    assert report["dtypes"] == {"F16": count}
    assert report["in_channels"] == (9 if "inpainting" in name else 4)
    assert {part: c["keys"] for part, c in report["components"].items()} == counts
    published = {"SD 1.5 inpainting": 859_535_364, "SDXL": 2_567_463_684}[name]
    assert report["components"]["unet"]["parameters"] == published
    assert report["components"]["vae"]["parameters"] == 83_653_863
    read = sum(c["tensors"] for c in report["components"].values())
    assert report["ignored_keys"] == count - read


def test_folder_and_file_are_one_family(twins: Twins) -> None:
    file, folder = inspect(twins.file), inspect(twins.folder)
    for field in ("kind", "family", "prediction_type", "scheduler", "in_channels"):
        assert file[field] == folder[field]
    assert (file["layout"], folder["layout"]) == ("single file (.safetensors)", "diffusers folder")
    keys = [{n: c["keys"] for n, c in r["components"].items()} for r in (file, folder)]
    assert keys[0] == keys[1]
    pickled = twins.root / "inspect.ckpt"
    torch.save({"state_dict": twins.tensors}, pickled)
    assert inspect(pickled)["components"] == file["components"]


def test_loras_and_embeddings(tmp_path: Path) -> None:
    base = "lora_unet_down_blocks_0_attentions_0_proj_in"
    lora = {
        f"{base}.lora_down.weight": torch.ones(4, 32, 1, 1),
        f"{base}.lora_up.weight": torch.ones(32, 4, 1, 1),
        f"{base}.alpha": torch.tensor(4.0),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(8, 16),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(16, 8),
    }
    report = inspect(save(tmp_path / "lora.safetensors", lora))
    assert report["kind"] == "LoRA"
    assert report["ranks"] == {"4": 1, "8": 1}
    assert report["targets"] == {"te": 1, "unet": 1}
    pair = {"clip_l": torch.ones(3, 768), "clip_g": torch.ones(3, 1280)}
    report = inspect(save(tmp_path / "pair.safetensors", pair))
    assert report["kind"] == "textual inversion"
    assert report["vectors"] == {"clip_l": [3, 768], "clip_g": [3, 1280]}


def test_what_would_be_refused_says_why(sd1: Twins, tmp_path: Path) -> None:
    report = inspect(sd1.write("more", {"stranger.weight": torch.ones(1)}))
    assert "1 unknown keys: stranger.weight" in report["refused"]
    report = inspect(save(tmp_path / "x.safetensors", {"double_blocks.0": torch.ones(2, 2)}))
    assert report["refused"].endswith("holds a Flux model, no Stable Diffusion model")
    with pytest.raises(InputError, match="there is no such file"):
        inspect("gone.safetensors")


def test_parts_of_models_and_folders_of_adapters(sd1: Twins, tmp_path: Path) -> None:
    for part, kind in (("vae", "VAE"), ("text_encoder", "text encoder"), ("unet", "UNet in")):
        folder = sd1.folder / part
        report = inspect(folder)
        assert report["kind"].startswith(kind)
        assert report["layout"] == "folder"
        assert report["tensors"] == inspect(sd1.folder)["components"][part]["tensors"]
        assert report["refused"] == f"{folder} is no model folder: model_index.json is missing"
    key = "unet.mid_block.attentions.0.proj_in.lora_A.weight"
    save(tmp_path / "pytorch_lora_weights.safetensors", {key: torch.ones(4, 32)})
    assert inspect(tmp_path)["ranks"] == {"4": 1}


def test_weights_that_do_not_fit_are_told(sd1: Twins, tmp_path: Path) -> None:
    key = "model.diffusion_model.out.2.bias"
    report = inspect(sd1.write("less", {key: None}))
    assert report["refused"].endswith("less.safetensors, unet: 1 missing: conv_out.bias")
    folder = tmp_path / "folder"
    shutil.copytree(sd1.folder, folder)
    assert "refused" not in inspect(folder)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 5}))
    assert "of another shape: conv_in.weight" in inspect(folder)["refused"]
    (tmp_path / "alone.safetensors").symlink_to(sd1.file)
    assert "holds no vocabulary" in inspect(tmp_path / "alone.safetensors")["refused"]


def test_the_command_line(sd1: Twins, capfd: pytest.CaptureFixture[str]) -> None:
    for args in (["--json"], []):
        with pytest.raises(SystemExit) as caught:
            main(["inspect", str(sd1.file), *args])
        assert caught.value.code == 0
        out = capfd.readouterr().out
        if args:
            assert json.loads(out) == inspect(sd1.file)
        else:
            assert "family            SD 1.x" in out
            assert "unet" in out
