"""LoRAs made of models and of other LoRAs: they act as what they were made of."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdcore.adapters import merged, open_lora, write_lora
from sdcore.adapters.deltas import change
from sdcore.adapters.extract import extract
from sdcore.adapters.join import join
from sdcore.adapters.low_rank import factors as nearest
from sdcore.adapters.low_rank import fewer, product_norm
from sdcore.adapters.resize import resize
from sdcore.checkpoints import open_model
from sdcore.checkpoints.convert import convert
from sdcore.errors import InputError
from sdcore.pipeline import StableDiffusion
from tests.adapters.conftest import BLOCK, CONVS, TEXT, UNET, Save, factors, flat, rand

PLACES = [("unet", name) for name in UNET + CONVS] + [("text_encoder", name) for name in TEXT]
RANK = 3


def networks(sd: StableDiffusion) -> dict[str, torch.nn.Module]:
    return {name: module for name, module in sd.modules.items() if name != "vae"}


def weight(sd: StableDiffusion, place: tuple[str, str]) -> Tensor:
    layer = networks(sd)[place[0]].get_submodule(place[1])
    assert isinstance(layer.weight, Tensor)
    return layer.weight


@pytest.fixture
def lora(sd: StableDiffusion, tmp_path: Path):
    """seed, layout, alpha -> a file of rank 3 on layers of every sort."""

    def lora(seed: int = 0, layout: str = "kohya", alpha: float = 1.5, name: str = "a") -> Path:
        layers = {}
        for i, place in enumerate(PLACES):
            down, up = factors(weight(sd, place).shape, RANK, seed + i)
            layers[place] = {"down": down, "up": up, "alpha": torch.tensor(alpha)}
        path = tmp_path / f"{name}.safetensors"
        notes = {"ss_network_dim": "3", "ss_network_alpha": "1.5", "ss_tag": "kept",
                 "ss_network_args": '{"conv_dim": "3", "conv_alpha": 1.5, "block_dims": "1,4", '
                 '"block_alphas": "1,2", "dropout": 0.1}',
                 "sshs_model_hash": "0" * 64}  # fmt: skip
        write_lora(path, layers, networks(sd), layout, notes, torch.float32)
        return path

    return lora


def changes(sd: StableDiffusion, path: Path) -> dict[tuple[str, str], Tensor]:
    """dW of every layer that a file changes."""
    adapter = open_lora(path, networks(sd))
    assert adapter.unmatched == ()
    return {place: change(parts, weight(sd, place)) for place, parts in adapter.layers.items()}


def cut(matrix: Tensor, rank: int) -> Tensor:
    """By torch's own SVD."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ v[:rank]).float()


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (1, 4)])
def test_the_nearest_of_a_rank(shape: tuple[int, int]) -> None:
    matrix = rand(*shape, size=1.0)
    for rank in (1, 3, 20):
        down, up = nearest(matrix, rank)
        assert len(down) == up.shape[1] == min(rank, *shape)
        assert (up @ down - cut(matrix, rank)).abs().max() < 1e-5
        # Both share the singular values.
        assert torch.allclose(up.norm(dim=0), down.norm(dim=1), atol=1e-5)
    first, second = rand(4, shape[1], seed=1), rand(shape[0], 4, seed=2)
    down, up = fewer(first, second, 2)
    assert (up @ down - cut(second @ first, 2)).abs().max() < 1e-5
    assert product_norm(first, second) == pytest.approx(float((second @ first).norm()), rel=1e-5)


def test_nothing_is_near_to_nothing() -> None:
    down, up = nearest(torch.zeros(4, 6), 2)
    assert (up @ down).count_nonzero() == 0
    assert down.isfinite().all()


@pytest.fixture
def tuned(tiny_path: Path, tmp_path: Path, lora) -> Path:
    """The tiny model with a LoRA of rank 3 for good, and a changed bias."""
    checkpoint = open_model(tiny_path)
    states, _ = merged(checkpoint, [str(lora())])
    states["unet"]["conv_in.bias"] = states["unet"]["conv_in.bias"] + 1
    convert(checkpoint, tmp_path / "tuned", None, states)
    return tmp_path / "tuned"


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_what_was_merged_in_is_found_again(
    sd: StableDiffusion, tiny_path: Path, tuned: Path, tmp_path: Path, layout: str, command
) -> None:
    status, _, err = command(
        "lora", "extract", tiny_path, tuned, tmp_path / "x.safetensors", "--rank", RANK,
        "--layout", layout,
    )  # fmt: skip
    assert status == 0, err
    assert "1 other weights differ, and are not in the LoRA: unet.conv_in.bias" in err
    found, true = changes(sd, tmp_path / "x.safetensors"), changes(sd, tmp_path / "a.safetensors")
    assert found.keys() == true.keys()
    for place, delta in found.items():  # the file is float16
        assert (delta - true[place]).abs().max() < 2e-3 * true[place].abs().max(), place
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        notes = file.metadata()
    assert (notes["ss_network_dim"], notes["ss_base_model_version"]) == ("3", "sd_v1")


def test_the_error_is_what_is_left_out(tiny_path: Path, tuned: Path, sd: StableDiffusion) -> None:
    new = extract(open_model(tiny_path), open_model(tuned), 1, conv_rank=2)
    all_of_it = extract(open_model(tiny_path), open_model(tuned), 99)  # no layer has more
    assert all_of_it.sizes["unet"].error < 1e-5
    whole = lost = 0.0
    for place, parts in new.layers.items():
        delta = change(all_of_it.layers[place], weight(sd, place)).flatten(1)
        rank = 2 if weight(sd, place).shape[2:] == (3, 3) else 1
        assert len(parts["down"]) == rank
        near = change(parts, weight(sd, place)).flatten(1)
        assert (near - cut(delta, rank)).abs().max() < 1e-5
        if place[0] == "unet":
            whole += float(delta.pow(2).sum())
            lost += float((delta - cut(delta, rank)).pow(2).sum())
    assert 0.1 < new.sizes["unet"].error == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    none = extract(open_model(tiny_path), open_model(tuned), 4, conv_rank=0)
    assert not any(weight(sd, place).shape[2:] == (3, 3) for place in none.layers)
    assert f"unet.{CONVS[1]}.weight" in none.left


def test_equal_other_or_broken_models_are_one_line(
    tiny_path: Path, family_path, tmp_path: Path
) -> None:
    tiny = open_model(tiny_path)
    with pytest.raises(InputError, match="no difference that a LoRA could hold"):
        extract(tiny, tiny, 4)
    with pytest.raises(InputError, match="different networks: of text_encoder"):
        extract(tiny, open_model(family_path("SDXL")), 4)
    broken = shutil.copytree(tiny_path, tmp_path / "broken")
    (file,) = (broken / "unet").glob("*.safetensors")
    tensors = load_file(file)
    tensors[f"{UNET[0]}.weight"].fill_(torch.nan)
    save_file(tensors, file)
    with pytest.raises(InputError, match=f"broken holds what is no number in unet.{UNET[0]}.w"):
        extract(tiny, open_model(broken), 4)


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_resized_by_the_formula(
    sd: StableDiffusion, lora, layout: str, tmp_path: Path, command
) -> None:
    path, out = lora(layout=layout), tmp_path / "short.safetensors"
    status, first, err = command("lora", "resize", path, out, "--rank", 2)
    assert (status, first) == (0, out), err
    before, after = changes(sd, path), changes(sd, out)
    assert before.keys() == after.keys()
    whole = lost = 0.0
    for place, delta in before.items():
        near = after[place].flatten(1)
        assert (near - cut(delta.flatten(1), 2)).abs().max() < 1e-5
        whole += float(delta.pow(2).sum())
        lost += float((delta.flatten(1) - near).pow(2).sum())
    assert resize(path, 2).error == pytest.approx((lost / whole) ** 0.5, rel=1e-3)
    old, new = load_file(path), load_file(out)
    assert old.keys() == new.keys()
    for key, tensor in new.items():
        assert tensor.dtype == old[key].dtype
        if key.endswith(("down.weight", "lora_A.weight")):
            assert tensor.shape == (2, *old[key].shape[1:])
    with safe_open(out, "pt") as file:
        notes = file.metadata()
    assert (notes["ss_network_dim"], notes["ss_tag"]) == ("2", "kept")
    assert "sshs_model_hash" not in notes  # it was of the old tensors
    assert json.loads(notes["ss_network_args"]) == {
        "conv_dim": "2", "conv_alpha": "1.0", "block_dims": "1,2", "block_alphas": "1.0,1.0",
        "dropout": 0.1,
    }  # fmt: skip
    if layout == "kohya":
        assert all(t == 1.0 for key, t in new.items() if key.endswith(".alpha"))
        assert notes["ss_network_alpha"] == "1.0"
    else:
        assert json.loads(notes["lora_adapter_metadata"])["unet.r"] == 2


def test_a_rank_that_is_large_enough_changes_nothing(sd: StableDiffusion, lora) -> None:
    for layout in ("kohya", "diffusers"):
        path = lora(layout=layout)
        new = resize(path, RANK)
        assert new.error < 1e-12
        save_file(dict(new.tensors), path.with_name("b.safetensors"), dict(new.metadata))
        before, after = changes(sd, path), changes(sd, path.with_name("b.safetensors"))
        assert all(torch.allclose(before[p], after[p], rtol=1e-6) for p in before)


def test_diffusers_reads_a_resized_one(
    sd: StableDiffusion, lora, tiny_path: Path, tmp_path: Path
) -> None:
    diffusers, _ = pytest.importorskip("diffusers"), pytest.importorskip("peft")
    for layout in ("kohya", "diffusers"):
        new = resize(lora(layout=layout), 2)
        path = tmp_path / f"short-{layout}.safetensors"
        save_file(dict(new.tensors), path, dict(new.metadata))
        pipe = diffusers.DiffusionPipeline.from_pretrained(tiny_path)
        pipe.load_lora_weights(path)
        x, context = rand(1, 4, 4, 4, size=1.0), rand(1, 7, 16)
        with torch.no_grad():
            wanted = pipe.unet(x, 500, context).sample
            got, plain = sd.with_lora(path).unet(x, 500.0, context), sd.unet(x, 500.0, context)
        assert (got - wanted).abs().max() < 5e-5 * wanted.abs().max()
        assert (got - plain).abs().max() > 0.01 * plain.abs().max()


def test_a_core_is_taken_in_and_a_loha_stays(sd: StableDiffusion, save: Save) -> None:
    conv, linear = f"lora_unet_{flat(CONVS[1])}", f"lora_unet_{flat(UNET[0])}"
    out, into = weight(sd, ("unet", CONVS[1])).shape[:2]
    loha = {f"{linear}.hada_{w}": rand(8, 8, seed=9) for w in ("w1_a", "w1_b", "w2_a", "w2_b")}
    path = save({
        f"{conv}.lora_down.weight": rand(4, into, 1, 1),
        f"{conv}.lora_mid.weight": rand(4, 4, 3, 3),
        f"{conv}.lora_up.weight": rand(out, 4, 1, 1), f"{conv}.alpha": torch.tensor(2.0), **loha,
    })  # fmt: skip
    new = resize(path, 2)
    assert (new.layers, new.others) == (1, 1)
    assert f"{conv}.lora_mid.weight" not in new.tensors
    assert all(new.tensors[key].equal(tensor) for key, tensor in loha.items())
    before = changes(sd, path)["unet", CONVS[1]].flatten(1)
    after = changes(sd, save(dict(new.tensors), "short"))["unet", CONVS[1]].flatten(1)
    assert (after - cut(before, 2)).abs().max() < 1e-5
    with pytest.raises(InputError, match="holds no LoRA that could be resized"):
        resize(save(loha, "loha"), 2)


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_several_act_as_one(
    sd: StableDiffusion, lora, tiny_path: Path, tmp_path: Path, layout: str, command
) -> None:
    a, b, out = lora(name="a"), lora(7, "diffusers", 6.0, "b"), tmp_path / "both.safetensors"
    status, _, err = command(
        "lora", "merge", f"{a}:0.5", f"{b}:unet=-2,text=0", out, "--model", tiny_path,
        "--layout", layout,
    )  # fmt: skip
    assert status == 0, err
    first, second, both = changes(sd, a), changes(sd, b), changes(sd, out)
    for place, delta in both.items():
        expected = 0.5 * first[place] + (-2 if place[0] == "unet" else 0) * second[place]
        assert (delta - expected).abs().max() < 2e-3 * expected.abs().max()  # float16
    x, context = rand(1, 4, 4, 4, size=1.0), rand(1, 7, 16)
    with torch.no_grad():
        one = sd.with_lora(out).unet(x, 500.0, context)
        two = sd.with_lora(a, 0.5).with_lora(b, unet=-2.0, text=0.0).unet(x, 500.0, context)
        plain = sd.unet(x, 500.0, context)
    assert (one - two).abs().max() < 1e-2 * (two - plain).abs().max()


def test_merged_at_a_rank(sd: StableDiffusion, lora, save: Save) -> None:
    loha = {f"lora_unet_{flat(UNET[0])}.hada_{w}": rand(8, 8, seed=n)
            for n, w in enumerate(("w1_a", "w1_b", "w2_a", "w2_b"))}  # fmt: skip
    loras = [open_lora(path, networks(sd)) for path in (lora(), save(loha, "loha"))]
    new = join(loras, networks(sd), 2)
    place = ("unet", UNET[0])
    whole = sum(change(each.layers[place], weight(sd, place)) for each in loras)
    assert isinstance(whole, Tensor)
    near = change(new.layers[place], weight(sd, place))
    # A LoHa is brought to the rank first, and then the sum.
    assert (near - whole).norm() < 1.1 * (cut(whole, 2) - whole).norm()
    assert 0 < new.error < 1
    with pytest.raises(InputError, match=r"loha.*: it is no LoRA .*: give a rank"):
        join(loras, networks(sd))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"alpha": torch.tensor(1.0), "dora_scale": torch.ones(8, 1)}, "depends on the weights"),
        ({"diff_b": torch.ones(8)}, "it changes a bias"),
    ],
)
def test_what_no_lora_can_hold_is_one_line(
    parts: dict[str, Tensor], said: str, sd: StableDiffusion, save: Save
) -> None:
    name, shape = f"lora_unet_{flat(f'{BLOCK}.attn1.to_q')}", (8, 8)
    down, up = factors(torch.Size(shape), 2, 0)
    path = save({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
                | {f"{name}.{part}": tensor for part, tensor in parts.items()})  # fmt: skip
    with pytest.raises(InputError, match=said):
        join([open_lora(path, networks(sd))], networks(sd))
    with pytest.raises(InputError, match="every strength is 0"):
        join([open_lora(path, networks(sd), 0.0, 0.0)], networks(sd))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"down": (0, 8), "up": (8, 0)}, "its down is empty"),
        ({"down": (2, 8), "up": (8, 3)}, "its factors do not fit each other: down .2, 8., up"),
        ({"down": (2,), "up": (8,)}, "its factors do not fit each other"),
        ({"down": (2, 8), "up": (8, 2), "mid": (2, 2)}, "its factors do not fit each other"),
    ],
)
def test_garbled_factors_are_one_line(
    parts: dict[str, tuple[int, ...]], said: str, sd: StableDiffusion, save: Save
) -> None:
    name = f"lora_unet_{flat(f'{BLOCK}.attn1.to_q')}"
    path = save({f"{name}.lora_{part}.weight": rand(*shape) for part, shape in parts.items()})
    for read in (lambda: resize(path, 1), lambda: open_lora(path, networks(sd))):
        with pytest.raises(InputError, match=f"to_?q: {said}"):
            read()


def test_whole_numbers_are_not_resized(save: Save) -> None:
    ones = torch.ones(4, 4, dtype=torch.int32)
    path = save({"lora_unet_x.lora_down.weight": ones, "lora_unet_x.lora_up.weight": ones})
    with pytest.raises(InputError, match=r"its down is torch.int32, which holds no fractions"):
        resize(path, 1)


def test_numbers_that_the_format_does_not_hold(sd: StableDiffusion, tmp_path: Path) -> None:
    place, path = ("unet", UNET[0]), tmp_path / "large.safetensors"
    down, up = factors(weight(sd, place).shape, 1, 0)
    with pytest.raises(InputError, match=r"down.weight holds what is no number, or none of t"):
        write_lora(path, {place: {"down": 1e6 * down, "up": up}}, networks(sd))
    assert not path.exists()


def test_nothing_is_written_over(lora, tmp_path: Path, command, tiny_path: Path) -> None:
    path = lora()
    for arguments in (
        ("resize", path, path, "--rank", 1),
        ("merge", path, path, "--model", tiny_path),
        ("extract", tiny_path, tiny_path, path),
    ):
        status, _, err = command("lora", *arguments)
        assert status == 2
        assert "is there already" in err
    status, _, err = command("lora", "merge", path, tmp_path / "x.ckpt", "--model", tiny_path)
    assert status == 2
    assert "x.safetensors" in err
