"""Single files in the LDM layout: the same model as the folder's, to the last bit."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import sdcore
from sdcore.checkpoints import open_file, open_folder
from sdcore.cli import main
from sdcore.errors import InputError
from tests.checkpoints.ldm_writer import ldm_ema
from tests.checkpoints.twins import DRAW, Twins, modules, picture


def assert_same_weights(ours: Mapping[str, nn.Module], wanted: Mapping[str, nn.Module]) -> None:
    assert ours.keys() == wanted.keys()
    for name, module in wanted.items():
        state, other = ours[name].state_dict(), module.state_dict()
        assert state.keys() == other.keys()
        assert all(torch.equal(state[key], other[key]) for key in other), name
        assert all(t.is_contiguous() and t.data_ptr() % 64 == 0 for t in state.values())


def test_the_weights_are_the_folders(twins: Twins) -> None:
    assert_same_weights(modules(open_file(twins.file)), modules(open_folder(twins.folder)))


def test_the_pictures_are_the_folders(twins: Twins) -> None:
    assert picture(twins.file) == picture(twins.folder)
    assert picture(twins.file, scheduler="euler_a") == picture(twins.folder, scheduler="euler_a")


def test_v_prediction_is_seen_in_the_weights(sd2: Twins, tmp_path: Path) -> None:
    v = Twins(tmp_path, second=True, v=True)
    assert open_file(v.file).scheduler["prediction_type"] == "v_prediction"
    assert open_file(v.file).components["unet"].config["sample_size"] == 96
    assert picture(v.file) == picture(v.folder)
    for twins, guess in ((v, "v_prediction"), (sd2, "epsilon")):
        (line,) = sdcore.load(twins.file, device="cpu").prepare("red", **DRAW).warnings
        assert line.endswith(f"its UNet predicts {guess} (a guess by its weights)")
    told = sd2.write("told", {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)})
    checkpoint = open_file(told)
    assert checkpoint.scheduler["prediction_type"] == "v_prediction"
    assert checkpoint.notes[0].endswith("predicts v_prediction (its key v_pred says so)")
    assert checkpoint.scheduler["rescale_betas_zero_snr"]


@pytest.mark.parametrize("second", [False, True])
def test_inpainting(second: bool, tmp_path: Path) -> None:
    twins = Twins(tmp_path, second, channels=9)
    checkpoint = open_file(twins.file)
    assert checkpoint.components["unet"].config["in_channels"] == 9
    assert checkpoint.scheduler["prediction_type"] == "epsilon"
    assert_same_weights(modules(checkpoint), modules(open_folder(twins.folder)))
    with pytest.raises(InputError, match="repaints a given picture: give it an image and a mask"):
        sdcore.load(twins.file).prepare("red")


def test_half_precision_files(twins: Twins) -> None:
    half = {k: t.half() for k, t in twins.tensors.items() if t.is_floating_point()}
    ours = modules(open_file(twins.write("half", half)))
    for name, module in modules(open_folder(twins.folder)).items():
        state = ours[name].state_dict()
        assert all(torch.equal(state[k], t.half().float()) for k, t in module.state_dict().items())


def test_averaged_weights_are_taken_when_asked_for(sd1: Twins) -> None:
    unet = {k: t for k, t in sd1.tensors.items() if k.startswith("model.diffusion_model.")}
    file = sd1.write("both", ldm_ema(unet))
    wanted = modules(open_folder(sd1.folder))
    assert_same_weights(modules(open_file(file)), wanted)
    for parameter in wanted["unet"].parameters():
        parameter += 1
    assert_same_weights(modules(open_file(file, ema=True)), wanted)
    with pytest.raises(InputError, match="no averaged"):
        open_file(sd1.file, ema=True)


def test_spellings_that_are_about(twins: Twins) -> None:
    """CLIP without `text_model.`, projections as linear layers, 23 blocks, idle parts of CLIP."""
    clip = "cond_stage_model.transformer."
    more: dict[str, Tensor | None] = {"denoiser.sigmas": torch.zeros(1000)}
    for key, tensor in twins.tensors.items():
        if ".mid.attn_1." in key and key.endswith("weight"):
            more[key] = tensor.flatten(1) if tensor.ndim == 4 else tensor
        if key.startswith(clip):
            more |= {key: None, key.replace("text_model.", ""): tensor}
        if ".resblocks.23." in key or key.endswith(("text_projection", "logit_scale")):
            more[key] = None
    if any(key.startswith(clip) for key in twins.tensors):
        more[f"{clip}vision_model.encoder.x.weight"] = torch.ones(1)
        more[f"{clip}text_projection.weight"] = torch.ones(1)
    file = twins.write("other", more)
    assert_same_weights(modules(open_file(file)), modules(open_folder(twins.folder)))


def test_the_command_line_draws_from_a_file(
    sd1: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, model in enumerate((sd1.file, sd1.folder)):
        args = f"sample red --seed 3 --steps 2 --width 32 --height 32 --out {number}.png".split()
        with pytest.raises(SystemExit) as caught:
            main([*args, "--device", "cpu", "--model", str(model)])
        assert caught.value.code == 0
    with Image.open("0.png") as ours, Image.open("1.png") as wanted:
        assert ours.tobytes() == wanted.tobytes()


def test_diffusers_reads_the_file_alike(twins: Twins) -> None:
    """A third party to the reader here and to the writer in these tests."""
    from diffusers.loaders import single_file_utils as theirs

    checkpoint = open_file(twins.file)
    ours = modules(checkpoint)
    unet = {"class_embed_type": None} | checkpoint.components["unet"].config
    vae = {f"{way}_block_types": ["EncoderBlock2D"] * 4 for way in ("down", "up")}
    wanted = {
        "unet": theirs.convert_ldm_unet_checkpoint(dict(twins.tensors), unet),
        "vae": theirs.convert_ldm_vae_checkpoint(dict(twins.tensors), vae),
    }
    for name, tensors in wanted.items():
        state = ours[name].state_dict()
        assert state.keys() == tensors.keys()
        assert all(torch.equal(state[key], tensors[key].view_as(state[key])) for key in state), name
