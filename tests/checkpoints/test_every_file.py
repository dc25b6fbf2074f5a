"""What files do, beyond that they load: the same weights, the same words, what is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import sdcore
from scripts.file_kinds import (
    CLIP,
    UNET,
    VAE,
    Bench,
    clip_folder,
    learned_tokenizer,
    png,
    rand,
    tiny_vae,
)
from sdcore.adapters import joined, open_embedding
from sdcore.checkpoints import load_component, open_model
from sdcore.checkpoints.convert import convert
from sdcore.checkpoints.merge import merge
from sdcore.errors import InputError
from sdcore.inspection import inspect
from sdcore.loading import load_vae
from sdcore.prompts import load_tokenizer


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    pytest.importorskip("diffusers")
    bench = Bench(tmp_path_factory.mktemp("files"))
    _ = bench.file
    return bench


def state(model: Path, name: str, **parts: Any) -> dict[str, Tensor]:
    return load_component(open_model(model, parts).components[name]).state_dict()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(t, b[k]) for k, t in a.items())


def test_parts_given_to_a_file_that_lacks_them(bench: Bench) -> None:
    unet, text = (bench.part(prefix) for prefix in (UNET, CLIP))
    vae = bench.model("SD 1.x") / "vae"
    for model, parts in (
        (bench.whole({}, VAE), {"vae": vae}),
        (bench.whole({}, CLIP), {"text_encoder": text}),
        (bench.whole({}, VAE), {"vae": bench.file}),
    ):
        for name in ("unet", "vae", "text_encoder"):
            assert equal(state(model, name, **parts), state(bench.file, name))
    # A UNet alone becomes a model where all else is given.
    for alone in (unet, bench.save(bench.unet())):
        checkpoint = open_model(alone, {"vae": vae, "text_encoder": text})
        assert list(checkpoint.components) == ["text_encoder", "unet", "vae"]
        assert checkpoint.components["vae"].config["scaling_factor"] == 0.18215
        with pytest.raises(InputError, match="--vae and --text-encoder make a model of it"):
            open_model(alone, {"vae": vae})
        with pytest.raises(InputError, match="with no text encoder: --text-encoder FILE gives it"):
            open_model(bench.whole({}, CLIP), {"vae": vae})


@pytest.mark.parametrize("decoder", [False, True])
@torch.no_grad()
def test_a_tiny_vae_shows_what_diffusers_shows(bench: Bench, decoder: bool) -> None:
    from diffusers import AutoencoderTiny

    folder = tiny_vae(bench)
    theirs = AutoencoderTiny.from_pretrained(folder)
    place = folder
    if decoder:  # the authors' file of it: the same layers, counted from 1
        layers = [
            (key.split(".", 3)[2:], tensor)
            for key, tensor in theirs.state_dict().items()
            if key.startswith("decoder.")
        ]
        place = bench.save({f"{int(n) + 1}.{rest}": tensor for (n, rest), tensor in layers})
    latents = rand(1, 4, 3, 5) * 20
    ours = load_vae(place).decode(latents)
    assert (ours - theirs.decode(latents).sample).abs().max() <= 1e-5
    sd = sdcore.load(bench.model("SD 1.x"), device="cpu", vae=place)
    assert torch.equal(sd.vae.decode(latents), ours)


def test_leftovers_are_told(bench: Bench) -> None:
    names = ["first_stage_model.loss.logvar", "first_stage_model.model_ema.decay"]
    names += ["embedding_manager.x.weight", "safety_checker.a.bias", "safety_checker.b.bias"]
    checkpoint = open_model(bench.whole({name: rand(1) for name in names}))
    (line,) = (note for note in checkpoint.notes if "not read" in note)
    for name in ("first_stage_model.loss", "first_stage_model.model_ema", "embedding_manager"):
        assert f"{name} (1 tensors)" in line
    assert "safety_checker (2 tensors)" in line


def test_the_scale_of_an_lcm_by_its_other_name(bench: Bench) -> None:
    path = bench.root / "lcm.safetensors"
    convert(open_model(bench.model("LCM")), path)
    tensors = load_file(path)
    old, new = (f"{UNET}{name}.cond_proj.weight" for name in ("time_embed", "time_embedding"))
    tensors[new] = tensors.pop(old)
    unet = open_model(bench.save(tensors)).components["unet"]
    assert unet.config["time_cond_proj_dim"] == 16
    weight = load_component(unet).state_dict()["time_embedding.cond_proj.weight"]
    assert torch.equal(weight, tensors[new])


def test_distilled_unets_in_single_files(bench: Bench) -> None:
    from scripts.file_kinds import DISTILLED

    for folder in (
        bench.with_unet("SDXL", **DISTILLED),
        bench.with_unet("SD 1.x", mid_block_type=None),
    ):
        path = bench.new()
        convert(open_model(folder), path)
        bare = bench.save(load_file(path))  # without the configurations that `convert` writes
        like = open_model(folder).components["unet"].config
        config = open_model(bare).components["unet"].config
        assert config["mid_block_type"] == like["mid_block_type"]
        assert config["down_block_types"] == like["down_block_types"]
        if "reverse_transformer_layers_per_block" in config:
            assert config["reverse_transformer_layers_per_block"] == [[2, 1], 1, 1]
        heads = {"attention_head_dim": 2, "norm_num_groups": 8}
        from sdcore.models import UNet, UNetConfig

        UNet(UNetConfig.from_dict(config | heads)).load_state_dict(state(folder, "unet"))


def test_a_whole_clip_as_the_text_encoder(bench: Bench) -> None:
    folder = clip_folder(bench)
    by_folder = state(bench.file, "text_encoder", text_encoder=folder)
    by_file = state(bench.file, "text_encoder", text_encoder=folder / "model.safetensors")
    assert equal(by_folder, by_file)
    assert not any("vision" in key or "projection" in key for key in by_folder)


def test_a_learned_word_of_the_tokenizer(bench: Bench) -> None:
    transformers = pytest.importorskip("transformers")
    folder = learned_tokenizer(bench)
    theirs = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    prompts = ["a <cat> red boat", "<cat>", "a<cat>b <CAT>", "red"]
    copy, file = bench.new(""), bench.new()
    convert(open_model(folder), copy)
    convert(open_model(folder), file)
    again = bench.new("")
    convert(open_model(file), again)
    for place in (folder, copy, file, again):
        tokenizer = load_tokenizer(*open_model(place).vocabulary())
        for prompt in prompts:
            full = {"padding": "max_length", "max_length": 77, "truncation": True}
            assert list(tokenizer(prompt).ids) == theirs(prompt, **full).input_ids, place
    (folder / "tokenizer" / "added_tokens.json").write_text(json.dumps({"<cat>": 99999}))
    with pytest.raises(InputError, match="its added word '<cat>' has the id 99999"):
        load_tokenizer(*open_model(folder).vocabulary())


def test_edm_models_are_refused_by_their_name(bench: Bench) -> None:
    marks = {"edm_vpred.sigma_max": torch.tensor(120.0), "edm_vpred.sigma_min": torch.tensor(0.002)}
    playground = {"edm_mean": rand(4), "edm_std": rand(4)}
    latents = {"latents_mean": [0.1] * 4, "latents_std": [1.0] * 4}
    for path in (
        bench.whole(marks),
        bench.whole(playground),
        bench.with_json("SDXL", "vae/config.json", **latents),
        bench.with_json("SDXL", "scheduler/scheduler_config.json", _class_name="EDMEulerScheduler"),
    ):
        with pytest.raises(InputError, match=r"of the EDM kind .*CosXL and Playground") as caught:
            sdcore.load(path, device="cpu")
        assert "\n" not in str(caught.value)
        report = inspect(path)
        assert report["kind"] == "model"
        assert report["family"].endswith(", EDM")
        assert "EDM kind" in report["refused"]
    scheduler = open_model(bench.whole(marks)).scheduler
    assert (scheduler["sigma_min"], scheduler["sigma_max"]) == pytest.approx((0.002, 120.0))


@pytest.mark.parametrize("more", [0, 5])
def test_another_vae_baked_in(bench: Bench, more: int) -> None:
    vae = load_file(bench.part(VAE))
    other = bench.save({k: t + 0.1 for k, t in vae.items()})
    path = bench.new()
    source = bench.file if more else bench.whole({}, VAE)
    convert(open_model(source, {"vae": other}), path)
    new, old = load_file(path), load_file(bench.file)
    for key, tensor in load_file(other).items():
        assert torch.equal(new[f"{VAE}{key}"], tensor)
    for key, tensor in old.items():
        assert key.startswith(VAE) or torch.equal(new[key], tensor)


def test_merging_models_that_repaint(bench: Bench) -> None:
    entrance = f"{UNET}input_blocks.0.0.weight"
    a = dict(bench.tensors)
    a[entrance] = torch.cat([a[entrance], rand(32, 5, 3, 3)], dim=1)
    b = {k: t + 0.1 if t.is_floating_point() else t for k, t in bench.tensors.items()}
    a_file, b_file, target = bench.save(a), bench.save(b), bench.new()
    assert merge(a_file, b_file, bench.file, target, alpha=1.0) == ()
    mixed, c = load_file(target), bench.tensors
    assert torch.equal(mixed[entrance][:, 4:], a[entrance][:, 4:])
    wanted = a[entrance][:, :4] + (b[entrance] - c[entrance])
    assert torch.allclose(mixed[entrance][:, :4], wanted, atol=1e-6)
    key = f"{UNET}out.2.weight"
    assert torch.allclose(mixed[key], a[key] + (b[key] - c[key]), atol=1e-6)
    with pytest.raises(InputError, match="name the one that has more first"):
        merge(b_file, a_file, None, bench.new())


def test_merging_with_files_that_lack_a_part_or_a_prefix(bench: Bench) -> None:
    b = bench.save({k: t + 0.2 for k, t in load_file(bench.part(UNET)).items()})
    target = bench.new()
    (line,) = merge(bench.file, b, None, target, alpha=0.5)
    assert "since another file lacks them" in line
    mixed, old = load_file(target), load_file(bench.file)
    for key, tensor in old.items():
        wanted = tensor + 0.1 if key.startswith(UNET) else tensor
        assert torch.allclose(mixed[key], wanted, atol=1e-6)
    target = bench.new()
    (line,) = merge(bench.whole({}, VAE), bench.file, None, target)
    assert "are left out, since" in line
    assert not any(key.startswith(VAE) for key in load_file(target))


def words(model: Path, add: Callable[[Any], Any]) -> list[nn.Module]:
    return [reader.encoder for reader in add(sdcore.load(model, device="cpu")).readers]


def test_words_of_sdxl_in_every_form(bench: Bench) -> None:
    one, two, model = rand(2, 32), rand(2, 48), bench.model("SDXL")
    pair = bench.save({"clip_l": one, "clip_g": two})
    pti = bench.save({"text_encoders_0": one, "text_encoders_1": two})
    halves = [bench.save({"<cat>": vectors}) for vectors in (one, two)]
    both = joined([open_embedding(half) for half in halves])
    turned = joined([open_embedding(half) for half in reversed(halves)])
    assert len(both) == len(turned) == 1
    wanted = words(model, lambda sd: sd.with_embedding(pair, "<cat>"))
    for add in (
        lambda sd: sd.with_embedding(pti, "<cat>"),
        lambda sd: sd.with_embedding(both[0]),
        lambda sd: sd.with_embedding(turned[0]),
    ):
        for new, old in zip(words(model, add), wanted, strict=True):
            assert equal(new.state_dict(), old.state_dict())
    sd = sdcore.load(model, device="cpu").with_embedding(both[0])
    assert [word.spec for word in sd.embeddings] == [f"{half}:<cat>" for half in halves]


def test_a_lora_teaches_the_words_that_it_holds(bench: Bench) -> None:
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    lora = {f"{layer}.lora_down.weight": rand(4, 64, 1, 1)}
    lora[f"{layer}.lora_up.weight"] = rand(64, 4, 1, 1)
    vectors = rand(2, 32)
    bundled = bench.save(lora | {"bundle_emb.my cat.string_to_param.*": vectors})
    apart, word = bench.save(lora), bench.save({"emb_params": vectors})
    sd = sdcore.load(bench.model("SD 1.x"), device="cpu")
    one, two = sd.with_lora(bundled), sd.with_embedding(word, "my cat").with_lora(apart)
    assert one.embeddings == ()  # it comes with --lora
    assert one.loras[0].unmatched == ()
    prompt = "a My Cat, red"
    ids = [list(m.readers[0].tokenizer(prompt).ids) for m in (one, two)]
    assert ids[0] == ids[1] != list(sd.readers[0].tokenizer(prompt).ids)
    assert equal(one.readers[0].encoder.state_dict(), two.readers[0].encoder.state_dict())
    assert equal(one.unet.state_dict(), two.unet.state_dict())


def test_an_embedding_inside_a_picture(bench: Bench) -> None:
    word = open_embedding(png(bench))
    assert word.token == "cat"
    assert torch.allclose(word.vectors[""], rand(1, 32))
    from PIL import Image

    plain = bench.new(".png")
    Image.new("RGB", (4, 4)).save(plain)
    with pytest.raises(InputError, match="a picture without an embedding"):
        open_embedding(plain)
