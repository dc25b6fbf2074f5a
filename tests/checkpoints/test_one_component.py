"""Components from elsewhere: files and folders of their own, and parts of other models."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import sdcore
from sdcore.checkpoints import load_component, open_model
from sdcore.checkpoints.one_component import open_part
from sdcore.cli import main
from sdcore.errors import InputError
from sdcore.images import read_settings
from sdcore.models import UNetConfig
from tests.checkpoints.twins import DRAW, Twins, save

PREFIX = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
FILES = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


def clip_prefix(twins: Twins) -> str:
    return next(
        p
        for p in ("cond_stage_model.transformer.", "cond_stage_model.model.")
        if any(k.startswith(p) for k in twins.tensors)
    )


def bare(twins: Twins, part: str) -> dict[str, Tensor]:
    """The part as LDM writes it, without the prefix of a whole file."""
    prefix = PREFIX[part] if part in PREFIX else clip_prefix(twins)
    own = {k: t for k, t in twins.tensors.items() if k.startswith(prefix)}
    return {k.removeprefix(prefix): t for k, t in own.items()}


def places(twins: Twins, part: str, folder: Path) -> list[Path]:
    """Every form of one component that people have."""
    ldm = bare(twins, part)
    noise = {"vae": "loss.discriminator.weight", "unet": "model_ema.decay"}
    beside = {noise.get(part, "logit_scale"): torch.ones(1)}
    pickled = folder / "bare.ckpt"
    torch.save({"state_dict": ldm | beside}, pickled)
    alone = Path(shutil.copytree(twins.folder / part, folder / part))
    return [
        save(folder / "bare.safetensors", ldm),
        pickled,
        Path(shutil.copyfile(twins.folder / FILES[part], folder / "diffusers.safetensors")),
        alone,
        twins.folder,
        twins.file,
    ]


def plain_config(module: nn.Module) -> object:
    """Its configuration; a number that stands for every level written out."""
    config: Any = module.config
    if not isinstance(config, UNetConfig):
        return config
    depth, heads = config.down_depths, config.heads
    return replace(config, transformer_layers_per_block=depth, attention_head_dim=heads)


@pytest.mark.parametrize("part", FILES)
def test_a_component_in_every_form(twins: Twins, part: str, tmp_path: Path) -> None:
    like = open_model(twins.folder).components[part]
    wanted = load_component(like)
    for place in places(twins, part, tmp_path):
        found = load_component(open_part(place, like))
        assert isinstance(found, nn.Module)
        assert plain_config(found) == plain_config(wanted), place
        state = found.state_dict()
        assert all(torch.equal(state[k], t) for k, t in wanted.state_dict().items()), place


def test_another_vae_draws_another_picture_and_is_remembered(
    sd1: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = {k: 1.1 * t for k, t in bare(sd1, "vae").items()}
    save(tmp_path / "other.safetensors", other)
    how = "--steps 2 --width 32 --height 32 --device cpu"
    for args in (
        f"sample red --seed 3 {how} --model {sd1.folder} --out plain.png",
        f"sample red --seed 3 {how} --model {sd1.folder} --out other.png --vae other.safetensors",
        "rerun other.png --out again.png",
    ):
        with pytest.raises(SystemExit) as caught:
            main(args.split())
        assert caught.value.code == 0
    assert read_settings(tmp_path / "other.png").vae == "other.safetensors"
    plain, drawn, again = (
        Image.open(tmp_path / f"{n}.png").tobytes() for n in ("plain", "other", "again")
    )
    assert plain != drawn == again


def test_load_takes_parts_and_a_pickled_model(sd1: Twins, tmp_path: Path) -> None:
    pickled = tmp_path / "model.ckpt"
    torch.save({"state_dict": sd1.tensors, "global_step": 1}, pickled)
    shutil.copytree(sd1.folder / "tokenizer", tmp_path / "tokenizer")
    wanted = sdcore.load(sd1.folder, device="cpu")
    found = sdcore.load(pickled, device="cpu", text_encoder=str(sd1.folder))
    for name in FILES:
        state = getattr(found, name).state_dict()
        assert all(torch.equal(state[k], t) for k, t in getattr(wanted, name).state_dict().items())
    (line, *_) = found.prepare("red", **DRAW).warnings
    assert line == f"{pickled} is SD 1.x; its UNet predicts epsilon (its family does)"
    with pytest.raises(InputError, match="load has no vea"):
        sdcore.load(sd1.folder, vea="x")  # type: ignore[call-arg]


def test_a_vae_for_other_latents_is_told(sd1: Twins, tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    shutil.copytree(sd1.folder / "vae", folder)
    assert not open_model(sd1.folder, {"vae": folder}).notes
    config = json.loads((folder / "config.json").read_text()) | {"scaling_factor": 0.13025}
    (folder / "config.json").write_text(json.dumps(config))
    (note,) = open_model(sd1.folder, {"vae": folder}).notes
    assert "its scaling factor is 0.13025, the model's own has 0.18215" in note


def refused(twins: Twins, part: str, place: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_model(twins.folder, {part: place})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_such_component_is_refused(sd1: Twins, sd2: Twins, tmp_path: Path) -> None:
    vae = sd1.folder / FILES["vae"]
    assert f"{vae} holds no unet that fits: it holds a VAE" in refused(sd1, "unet", vae)
    assert "is of class AutoencoderKL; what is read as unet" in refused(sd1, "unet", vae.parent)
    assert "has no text_encoder_2 to replace" in refused(sd1, "text_encoder_2", vae)
    more = save(tmp_path / "more.safetensors", load_file(vae) | {"decoder.x.y": torch.ones(1)})
    open_part(more, open_model(sd1.folder).components["vae"])  # its keys are held by `load`
    more = save(tmp_path / "more.safetensors", bare(sd1, "vae") | {"decoder.x": torch.ones(1)})
    assert "vae: 1 unknown keys: decoder.x" in refused(sd1, "vae", more)
    assert "neither a model" in refused(sd1, "vae", sd1.root)
    narrow = bare(sd2, "unet")
    for key in narrow:
        if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            narrow[key] = narrow[key][:, :96]
    place = save(tmp_path / "narrow.safetensors", narrow)
    assert "says cross_attention_dim 96" in refused(sd1, "unet", place)
    config = tmp_path / "vae"
    config.mkdir()
    (config / "config.json").write_text(json.dumps({}))
    assert f"{config} holds no weights" in refused(sd1, "vae", config)


def test_what_has_no_variants_says_so(sd1: Twins) -> None:
    with pytest.raises(InputError, match="is one file: it has no variants"):
        open_model(sd1.file, variant="fp16")
    with pytest.raises(InputError, match="is a folder: its averaged weights are its plain ones"):
        open_model(sd1.folder, ema=True)
