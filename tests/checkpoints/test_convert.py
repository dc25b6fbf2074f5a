"""From either layout to either: every weight bit for bit, and the same picture."""

import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import sdcore
from sdcore.adapters import merged
from sdcore.checkpoints import open_model
from sdcore.checkpoints.convert import convert
from sdcore.checkpoints.ldm_write import text_encoder_to_open_clip, unet_to_ldm, vae_to_ldm
from sdcore.cli import main
from sdcore.errors import InputError
from tests.checkpoints.ldm_writer import ldm_open_clip, ldm_unet, ldm_vae
from tests.checkpoints.test_ldm import assert_same_weights
from tests.checkpoints.test_ldm_whole import WHOLE, published
from tests.checkpoints.twins import DRAW, Twins, modules, picture
from tests.conftest import write_tokenizer


def test_round_trips_are_equal_to_the_bit(twins: Twins, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    file, folder, back = tmp_path / "a.safetensors", tmp_path / "b", tmp_path / "c.safetensors"
    convert(open_model(twins.folder), file)
    convert(open_model(file), folder)
    convert(open_model(folder), back)
    wanted = modules(open_model(twins.folder))
    for place in (file, folder, back):
        assert_same_weights(modules(open_model(place)), wanted)
    first, last = load_file(file), load_file(back)
    assert first.keys() == last.keys()
    assert all(torch.equal(first[k], last[k]) for k in first)
    # What an independent hand wrote of the same model.
    assert first.keys() <= twins.tensors.keys()
    assert all(torch.equal(first[k], twins.tensors[k]) for k in first)
    assert picture(file) == picture(folder) == picture(twins.folder)
    assert not list(tmp_path.glob(".*"))


def test_a_foreign_file_becomes_a_folder_that_diffusers_opens(twins: Twins, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    convert(open_model(twins.file), tmp_path / "b")
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "b")
    wanted = modules(open_model(twins.folder))
    for name in ("unet", "vae"):
        state = getattr(pipe, name).state_dict()
        assert all(torch.equal(state[k], t) for k, t in wanted[name].state_dict().items())
    assert pipe.tokenizer.pad_token == ("!" if "sd2" in str(twins.root) else "<|endoftext|>")


@pytest.mark.parametrize("model", dict.fromkeys(model for model, *_ in WHOLE.values()))
def test_every_published_unet_gets_its_published_keys(model: str) -> None:
    from diffusers import UNet2DConditionModel

    from sdcore.checkpoints.load import NoInit

    config = published(model, "unet")
    with torch.device("meta"), NoInit():
        state = UNet2DConditionModel(**config).state_dict()
    wanted = ldm_unet(state, len(config["block_out_channels"]), 2)
    prefix = "model.diffusion_model."
    found = {f"{prefix}{k}": tuple(t.shape) for k, t in unet_to_ldm(state).items()}
    assert found == {k: tuple(t.shape) for k, t in wanted.items()}


def test_vae_and_open_clip(sd2: Twins) -> None:
    parts = {name: module.state_dict() for name, module in modules(open_model(sd2.folder)).items()}
    for found, wanted, prefix in (
        (vae_to_ldm(parts["vae"]), ldm_vae(parts["vae"], 4, 2), "first_stage_model."),
        (
            text_encoder_to_open_clip(parts["text_encoder"]),
            ldm_open_clip(parts["text_encoder"], "x.", layers=23),
            "x.",
        ),
    ):
        wanted = {
            k: t for k, t in wanted.items() if k[2:] not in ("logit_scale", "text_projection")
        }
        assert {f"{prefix}{key}" for key in found} == wanted.keys()
        assert all(torch.equal(t, wanted[f"{prefix}{key}"]) for key, t in found.items())


def test_the_command_line(sd1: Twins, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "half.safetensors"
    for status in (0, 2):
        with pytest.raises(SystemExit) as caught:
            main(["convert", str(sd1.folder), str(target), "--dtype", "float16"])
        assert caught.value.code == status
    out, err = capfd.readouterr()
    assert out.strip() == str(target)
    assert f"sdcore: {target} is there already\n" in err
    assert {t.dtype for t in load_file(target).values()} == {torch.float16}


@pytest.mark.parametrize("target", ["merged.safetensors", "merged"])
def test_a_lora_merged_in_draws_what_it_draws_beside(
    sd1: Twins, tmp_path: Path, capfd: pytest.CaptureFixture[str], target: str
) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    rng, lora = torch.Generator().manual_seed(0), tmp_path / "style.safetensors"
    tensors = {"lora_unet_nowhere.alpha": torch.tensor(1.0)}
    places = {
        "unet": "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "text_encoder": "lora_te_text_model_encoder_layers_1_self_attn_q_proj",
    }
    for name, width in (("unet", 32), ("text_encoder", 128)):
        for part, shape in (("down", (3, width)), ("up", (width, 3))):
            tensors[f"{places[name]}.lora_{part}.weight"] = torch.randn(*shape, generator=rng)
    save_file(tensors, lora)
    path = tmp_path / target
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(sd1.folder), str(path), "--lora", f"{lora}:0.8"])
    assert caught.value.code == 0
    assert "lora_unet_nowhere.alpha" in capfd.readouterr().err

    sd = sdcore.load(sd1.folder, device="cpu").with_lora(lora, 0.8)
    run = sd.prepare("a red boat!", **DRAW)
    with torch.inference_mode():
        beside = run.decode([step.x_next for step in run][-1])[0].tobytes()
    assert picture(path) == beside != picture(sd1.folder)
    whole, half = (merged(open_model(sd1.folder), [str(lora)], d)[0] for d in (None, torch.half))
    for name, state in whole.items():  # rounded once, after the sum
        assert all(torch.equal(half[name][k], t.half()) for k, t in state.items())
    own, written = modules(open_model(sd1.folder)), modules(open_model(path))
    for name in own:
        state = own[name].state_dict()
        changed = {k for k, t in written[name].state_dict().items() if not torch.equal(t, state[k])}
        assert len(changed) == (name in places), changed


def test_sdxl_there_and_back(family_path: Callable[[str], Path], tmp_path: Path) -> None:
    source, file, back = family_path("SDXL"), tmp_path / "xl.safetensors", tmp_path / "back"
    (tmp_path / "tokenizer").symlink_to(source / "tokenizer")
    convert(open_model(source), file)
    convert(open_model(file), back)
    wanted = modules(open_model(source))
    for place in (file, back):
        assert_same_weights(modules(open_model(place)), wanted)
        assert picture(place) == picture(source)


@pytest.mark.parametrize("family", ["SDXL inpainting", "SDXL refiner", "LCM"])
def test_diffusers_is_told_the_pipeline(
    family_path: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    source, file, back = family_path(family), tmp_path / "one.safetensors", tmp_path / "back"
    tokenizer = "tokenizer_2" if "refiner" in family else "tokenizer"
    (tmp_path / "tokenizer").symlink_to(source / tokenizer)
    convert(open_model(source), file)
    convert(open_model(file), back)
    convert(open_model(source), tmp_path / "copy")
    wanted = json.loads((source / "model_index.json").read_text())
    for place in (back, tmp_path / "copy"):
        found = json.loads((place / "model_index.json").read_text())
        assert found.items() >= {k: v for k, v in wanted.items() if k[:11] != "_diffusers_"}.items()


def test_what_only_the_index_says_goes_into_the_file(
    family_path: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for part in family_path("SDXL").iterdir():
        (folder / part.name).symlink_to(part)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"force_zeros_for_empty_prompt": False, "safety_checker": ["x", "Y"]}
    (folder / "model_index.json").unlink()
    (folder / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "tokenizer").symlink_to(folder / "tokenizer")
    convert(open_model(folder), tmp_path / "xl.safetensors")
    convert(open_model(folder), tmp_path / "copy")
    for place in (tmp_path / "xl.safetensors", tmp_path / "copy"):
        assert open_model(place).index["force_zeros_for_empty_prompt"] is False
    # It was not copied, and is not promised.
    assert open_model(tmp_path / "copy").index["safety_checker"] == [None, None]


def test_a_full_disk_leaves_nothing(sd1: Twins, tmp_path: Path) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        for name in ("a.safetensors", "folder"):
            with pytest.raises(InputError, match=f"cannot write .*{name}") as caught:
                convert(open_model(sd1.folder), tmp_path / name)
            assert "\n" not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_nothing(sd1: Twins, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write to"):
        convert(open_model(sd1.folder), tmp_path / "gone" / "a.safetensors")
    for name in ("a.ckpt", "a.SafeTensors"):
        with pytest.raises(InputError, match=r"as \.safetensors: name it .*a\.safetensors"):
            convert(open_model(sd1.folder), tmp_path / name)
    with pytest.raises(InputError, match="a name in it is too long"):
        convert(open_model(sd1.folder), tmp_path / ("a" * 300))
    alone = tmp_path / "alone.safetensors"
    alone.symlink_to(sd1.file)
    with pytest.raises(InputError, match="holds no vocabulary"):
        convert(open_model(alone), tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["alone.safetensors"]
