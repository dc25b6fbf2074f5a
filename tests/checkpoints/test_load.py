"""A folder to modules: strictly, and with one readable line when it does not fit."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdcore.checkpoints import load_component, open_folder
from sdcore.checkpoints.parameter_names import text_encoder_key, vae_key
from sdcore.errors import InputError

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
K = "conv_in.weight"


def edit_weights(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {k: v.clone() for k, v in load_file(path).items()}
    edit(tensors)
    save_file(tensors, path)


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def load_all(path: Path, **how: object) -> dict[str, torch.nn.Module]:
    components = open_folder(path).components
    return {name: load_component(c, **how) for name, c in components.items()}  # type: ignore


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_weight_arrives(tiny_path: Path, dtype: torch.dtype) -> None:
    modules = load_all(tiny_path, dtype=dtype)
    for name, file in (("unet", UNET), ("vae", VAE)):
        state = modules[name].state_dict()
        stored = load_file(tiny_path / file)
        assert state.keys() == stored.keys()
        assert all(torch.equal(state[k], stored[k].to(dtype)) for k in stored)
    text = modules["text_encoder"].state_dict()
    for key, value in load_file(tiny_path / TEXT).items():
        assert torch.equal(text["text_model." + key.removeprefix("text_model.")], value.to(dtype))
    for module in modules.values():
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
        assert all(p.device.type == "cpu" and p.dtype == dtype for p in module.parameters())


def test_a_tokenizer_that_the_index_promises(
    family_path: Callable[[str], Path], tmp_path: Path
) -> None:
    """SDXL's second pads with "!": the first does not stand for it."""
    for part in family_path("SDXL").iterdir():
        if part.name != "tokenizer_2":
            (tmp_path / part.name).symlink_to(part)
    with pytest.raises(InputError, match="tokenizer_2 is missing"):
        open_folder(tmp_path)


def test_float16_files_become_float32(broken_path: Path) -> None:
    edit_weights(broken_path / UNET, lambda t: t.update({k: v.half() for k, v in t.items()}))
    unet = load_all(broken_path)["unet"]
    assert {p.dtype for p in unet.parameters()} == {torch.float32}


def test_clip_keys_with_prefix_and_position_ids(tiny_path: Path, broken_path: Path) -> None:
    def prefixed(tensors: dict[str, Tensor]) -> None:
        for key in [k for k in tensors if not k.startswith("text_model.")]:
            tensors["text_model." + key] = tensors.pop(key)
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]

    edit_weights(broken_path / TEXT, prefixed)
    new = load_all(broken_path)["text_encoder"].state_dict()
    old = load_all(tiny_path)["text_encoder"].state_dict()
    assert all(torch.equal(new[k], old[k]) for k in old)


def test_old_vae_attention_names(tiny_path: Path, broken_path: Path) -> None:
    old_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def aged(tensors: dict[str, Tensor]) -> None:
        for key in [k for k in tensors if ".attentions." in k]:
            for new, old in old_names.items():
                if f".{new}." in key:
                    tensors[key.replace(f".{new}.", f".{old}.")] = tensors.pop(key)

    edit_weights(broken_path / VAE, aged)
    assert any(".query." in k for k in load_file(broken_path / VAE))
    new, old = load_all(broken_path)["vae"].state_dict(), load_all(tiny_path)["vae"].state_dict()
    assert all(torch.equal(new[k], old[k]) for k in old)


def test_names_are_left_alone_where_they_are_right() -> None:
    assert vae_key("decoder.mid_block.attentions.0.to_q.weight").endswith("to_q.weight")
    assert vae_key("decoder.conv_in.weight") == "decoder.conv_in.weight"
    assert text_encoder_key("text_projection.weight") == "text_projection.weight"


def test_sharded_weights(tiny_path: Path, broken_path: Path) -> None:
    path = broken_path / UNET
    tensors = load_file(path)
    keys = sorted(tensors)
    parts = {"a.safetensors": keys[::2], "b.safetensors": keys[1::2]}
    for name, part in parts.items():
        save_file({k: tensors[k] for k in part}, path.parent / name)
    path.unlink()
    weight_map = {k: name for name, part in parts.items() for k in part}
    Path(f"{path}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    new, old = load_all(broken_path)["unet"].state_dict(), load_all(tiny_path)["unet"].state_dict()
    assert all(torch.equal(new[k], old[k]) for k in old)
    (path.parent / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"b\.safetensors is missing"):
        load_all(broken_path)
    for name in ("../a.safetensors", "/a.safetensors", "..", "", "a\0"):
        Path(f"{path}.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(InputError, match="which is not beside it"):
            open_folder(broken_path)


def test_missing_extra_and_misshapen_keys_are_listed(broken_path: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors.pop("conv_in.bias")
        tensors["stranger.weight"] = torch.ones(1)
        tensors["conv_out.bias"] = torch.ones(5)

    edit_weights(broken_path / UNET, edit)
    with pytest.raises(InputError) as caught:
        load_all(broken_path)
    line = str(caught.value)
    assert "\n" not in line
    assert "1 missing: conv_in.bias" in line
    assert "1 unknown: stranger.weight" in line
    assert "1 of another shape: conv_out.bias (file [5], config [4])" in line


def test_long_lists_are_cut(broken_path: Path) -> None:
    edit_weights(broken_path / VAE, dict.clear)
    with pytest.raises(InputError, match=r"\d+ missing: .* and \d+ more"):
        load_all(broken_path)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("unet/config.json", {"block_out_channels": [16, 16]}, "another shape"),
        ("unet/config.json", {"layers_per_block": 2}, "missing"),
        ("unet/config.json", {"cross_attention_dim": 24}, "cross_attention_dim 24"),
        ("unet/config.json", {"out_channels": 8}, "latent_channels 4"),
        ("unet/config.json", {"block_out_channels": "wide"}, "config"),
        ("unet/config.json", {"norm_num_groups": 0}, "config"),
        ("text_encoder/config.json", {"num_hidden_layers": 1}, "unknown"),
        ("vae/config.json", {"block_out_channels": [4, 8]}, "unknown"),
    ],
)
def test_a_config_that_contradicts_the_weights(
    broken_path: Path, file: str, values: dict[str, object], message: str
) -> None:
    edit_json(broken_path / file, **values)
    with pytest.raises(InputError, match=message) as caught:
        load_all(broken_path)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "gone",
    [
        "model_index.json",
        "unet/config.json",
        UNET,
        VAE,
        TEXT,
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_missing_file_is_named(broken_path: Path, gone: str) -> None:
    (broken_path / gone).unlink()
    with pytest.raises(InputError, match=re.escape(Path(gone).name) + ".* is missing|is missing"):
        load_all(broken_path)


def test_pickled_weights_are_read(tiny_path: Path, broken_path: Path) -> None:
    for old, new in ((UNET, "diffusion_pytorch_model.bin"), (TEXT, "pytorch_model.bin")):
        torch.save(load_file(broken_path / old), (broken_path / old).with_name(new))
        (broken_path / old).unlink()
    wanted = load_all(tiny_path)
    for name, module in load_all(broken_path).items():
        state = module.state_dict()
        assert all(torch.equal(state[k], t) for k, t in wanted[name].state_dict().items())


def test_a_variant_is_taken_where_there_is_one(broken_path: Path) -> None:
    other = broken_path / "unet" / "diffusion_pytorch_model.non_ema.safetensors"
    other.write_bytes((broken_path / UNET).read_bytes())
    edit_weights(other, lambda t: t.update({k: v + 1 for k, v in t.items()}))
    parts = open_folder(broken_path, "non_ema").components
    assert parts["unet"].files == (other,)
    assert parts["vae"].files == (broken_path / VAE,)
    assert open_folder(broken_path).components["unet"].files == (broken_path / UNET,)
    with pytest.raises(InputError, match="has no variant 'fp16' of any component"):
        open_folder(broken_path, "fp16")


def test_shards_of_a_variant(tiny_path: Path, broken_path: Path) -> None:
    stem = "diffusion_pytorch_model.fp16"
    tensors = load_file(broken_path / UNET)
    (broken_path / UNET).unlink()
    weight_map = {k: f"{stem}-0000{1 + i % 2}-of-00002.safetensors" for i, k in enumerate(tensors)}
    for name in set(weight_map.values()):
        part = {k: t for k, t in tensors.items() if weight_map[k] == name}
        save_file(part, broken_path / "unet" / name)
    index = broken_path / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    new, old = load_all(broken_path)["unet"].state_dict(), load_all(tiny_path)["unet"].state_dict()
    assert all(torch.equal(new[k], old[k]) for k in old)
    index.write_text(json.dumps({"weight_map": {"a": "../../elsewhere.safetensors"}}))
    with pytest.raises(InputError, match=r"elsewhere\.safetensors', which is not beside"):
        open_folder(broken_path)


def test_the_float16_variant_stands_in(broken_path: Path) -> None:
    fp16 = broken_path / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    (broken_path / UNET).rename(fp16)
    assert open_folder(broken_path).components["unet"].files == (fp16,)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_where_the_network_has_floats(broken_path: Path, dtype: torch.dtype) -> None:
    edit_weights(broken_path / UNET, lambda t: t.update({K: t[K].to(dtype)}))
    with pytest.raises(InputError, match=rf"1 not of floating numbers: {K} \("):
        load_all(broken_path)


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("unet", "layers_per_block"),
        ("unet", "transformer_layers_per_block"),
        ("vae", "layers_per_block"),
        ("text_encoder", "num_hidden_layers"),
    ],
)
def test_more_layers_than_the_file_can_be_for(broken_path: Path, part: str, field: str) -> None:
    """Refused before they are made: that would take hours."""
    for many, why in ((1_000_000_000, "1000 at most"), (1000, "more layers than its weights")):
        edit_json(broken_path / part / "config.json", **{field: many})
        with pytest.raises(InputError, match=why):
            load_all(broken_path)
