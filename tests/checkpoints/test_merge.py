"""Single files mixed: the formulas by hand, the blocks, the recipe, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdcore.checkpoints.merge import RECIPE, merge
from sdcore.checkpoints.read import read_metadata
from sdcore.errors import InputError

UNET = "model.diffusion_model."
ALPHAS = {
    f"{UNET}input_blocks.4.1.proj_in.weight": 0.1,
    f"{UNET}input_blocks.11.0.in_layers.2.weight": 0.2,
    f"{UNET}middle_block.1.proj_in.weight": 0.3,
    f"{UNET}output_blocks.0.0.in_layers.2.weight": 0.4,
    f"{UNET}time_embed.0.weight": 0.5,
    "first_stage_model.decoder.conv_in.weight": 0.6,
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": 0.7,
}
BLOCKS = {"in4": 0.1, "in": 0.2, "mid": 0.3, "out0": 0.4, "unet": 0.5, "vae": 0.6, "text": 0.7}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for n, name in enumerate("abc"):
        draw = torch.Generator().manual_seed(n)
        tensors = {key: torch.randn(3, 4, generator=draw) for key in ALPHAS}
        tensors["position_ids"] = torch.arange(5) + n
        paths.append(tmp_path / f"{name}.safetensors")
        save_file(tensors, paths[-1], {"from": name})
    return paths


@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("blocks", [{}, BLOCKS])
def test_formulas(files: list[Path], tmp_path: Path, difference: bool, blocks: Any) -> None:
    out = tmp_path / "out.safetensors"
    third = files[2] if difference else None
    assert merge(files[0], files[1], third, out, 0.25, blocks) == ()
    a, b, c = map(load_file, files)
    got = load_file(out)
    for key, own in ALPHAS.items():
        alpha = own if blocks else 0.25
        x, y, z = (t[key].double() for t in (a, b, c))
        wanted = x + alpha * (y - z) if difference else (1 - alpha) * x + alpha * y
        assert (got[key].double() - wanted).abs().max() < 1e-6, key
    assert torch.equal(got["position_ids"], a["position_ids"])
    notes = read_metadata(out)
    recipe = json.loads(notes[RECIPE])
    assert (recipe["alpha"], recipe["blocks"], notes["from"]) == (0.25, blocks, "a")
    assert [recipe[k] for k in "ab"] == [str(p) for p in files[:2]]
    assert recipe["c"] == (None if third is None else str(third))
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (*files, out)}


def test_alpha_0_is_the_first_to_the_bit(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    merge(files[0], files[1], None, out, 0.0)
    a, got = load_file(files[0]), load_file(out)
    assert all(torch.equal(got[key], a[key]) for key in a)


def test_what_another_file_lacks_is_told(files: list[Path], tmp_path: Path) -> None:
    key, *rest = ALPHAS
    b = load_file(files[1])
    save_file({k: b[k] for k in rest}, files[1])
    (line,) = merge(files[0], files[1], None, tmp_path / "out.safetensors")
    assert "since another file lacks them" in line
    assert torch.equal(load_file(tmp_path / "out.safetensors")[key], load_file(files[0])[key])


def test_what_is_refused(files: list[Path], tmp_path: Path) -> None:
    a, b, _ = files
    out = tmp_path / "out.safetensors"
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    save_file({k: torch.zeros(2) for k in ALPHAS}, tmp_path / "y.safetensors")
    calls: list[tuple[tuple[Any, ...], str]] = [
        ((a, tmp_path / "x.safetensors", None, out), "no key in common"),
        (
            (a, tmp_path / "y.safetensors", None, out),
            r"of one family: .* is \[3, 4\] in one, \[2\]",
        ),
        ((a, b, None, a), "is there already"),
        ((a, b, None, tmp_path / "out.ckpt"), r"is no \.safetensors name"),
        ((a, b, None, tmp_path / "no" / "out.safetensors"), "no folder that can be written"),
        ((a, b, None, out, float("nan")), "finite"),
        ((a, b, None, out, 0.5, {"middle": 1.0}), "unknown block 'middle'"),
        ((a, b, None, out, 0.5, {"in4": 1.0, "in10": 1.0}), "has no block 'in10'"),
        ((a, tmp_path, None, out), "is a folder: sdcore convert"),
        ((a, tmp_path / "z.safetensors", None, out), "is missing"),
    ]
    for arguments, message in calls:
        with pytest.raises(InputError, match=message) as caught:
            merge(*arguments)
        assert "\n" not in str(caught.value)
    assert not out.exists()
