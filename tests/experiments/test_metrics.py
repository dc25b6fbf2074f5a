"""metrics: pairs by name, or by prompt and seed; the numbers against scipy's and closed forms."""

import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from sdcore.errors import InputError
from sdcore.experiments.metrics import (
    clip_scores,
    frechet,
    inception_distances,
    lpips,
    pairs_of,
    scores,
    ssim,
)
from sdcore.images import to_tensor
from tests.cli.shell import Shell


def picture(path: Path, seed: int, side: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_ssim_is_that_of_the_paper() -> None:
    """Against scipy's Gaussian filter, cut at 5 pixels, on a noisy copy."""
    rng = np.random.default_rng(0)
    x = gaussian_filter(rng.random((3, 40, 36)), (0, 2, 2)) * 4 % 1
    y = np.clip(x + 0.1 * rng.standard_normal(x.shape), 0, 1)

    def mean(values):
        return gaussian_filter(values, (0, 1.5, 1.5), radius=(0, 5, 5))

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    top = (2 * mx * my + 1e-4) * (2 * cov + 9e-4)
    expected = (top / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))[:, 5:-5, 5:-5].mean()
    a, b = (torch.tensor(each)[None] * 2 - 1 for each in (x, y))
    assert 0.2 < expected < 0.9
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)
    assert ssim(a, a) == pytest.approx(1)
    assert ssim(a[..., :8, :8], a[..., :8, :8]) == pytest.approx(1)


def test_the_frechet_distance() -> None:
    torch.manual_seed(0)
    a = torch.randn(200, 5) @ torch.randn(5, 5)
    b = torch.randn(300, 5) @ torch.randn(5, 5) + 1
    first, second = (np.cov(each.numpy().T) for each in (a.double(), b.double()))
    gap = (a.double().mean(0) - b.double().mean(0)).square().sum().item()
    expected = gap + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, a + 2) == pytest.approx(20, rel=1e-6)


def test_scores_of_a_pair(tmp_path: Path) -> None:
    one, other = picture(tmp_path / "a" / "x.png", 0), picture(tmp_path / "b" / "x.png", 1)
    (pair,) = pairs_of(tmp_path / "a", tmp_path / "b")
    found = scores(pair)
    gap = np.asarray(Image.open(one), float) - np.asarray(Image.open(other), float)
    rmse = math.sqrt((gap**2).mean())
    assert found.rmse == pytest.approx(rmse, rel=1e-6)
    assert found.psnr == pytest.approx(20 * math.log10(255 / rmse), rel=1e-6)
    assert found.ssim == ssim(*(to_tensor(Image.open(each)) for each in (one, other)))
    picture(tmp_path / "c" / "x.png", 0, side=16)
    with pytest.raises(InputError, match=r"x\.png is 32x32 in one and 16x16 in the other"):
        scores(pairs_of(tmp_path / "a", tmp_path / "c")[0])


def test_folders_pair_by_path(tmp_path: Path) -> None:
    for name in ("s/1.png", "s/2.png", "3.webp", ".sweep/4.png", "sheet.png"):
        picture(tmp_path / "a" / name, 0)
        picture(tmp_path / "b" / name, 0)
    picture(tmp_path / "b" / "5.png", 0)
    assert [each.name for each in pairs_of(tmp_path / "a", tmp_path / "b")] == [
        "3.webp", "s/1.png", "s/2.png",
    ]  # fmt: skip
    for folder, line in (("none", "is no folder"), ("a/.sweep/x", "is no folder")):
        with pytest.raises(InputError, match=line):
            pairs_of(tmp_path / folder, tmp_path / "a")


def test_a_picture_of_a_sheet_is_no_sheet(shell: Shell) -> None:
    """Left out is what commands make of many pictures, by its name and as it holds no settings."""
    shell.sample("sheet", "plot of land", "--seed", "0-1", "--sheet", "--steps-sheet", "--out", "a")
    shell.sample("sheet", "plot of land", "--seed", "0", "--out", "b")
    assert {"sheet.png", "steps.png"} < {each.name for each in Path("a").iterdir()}
    assert [each.name for each in pairs_of("a", "b")] == ["plot-of-land-0.png", "sheet-0.png"]
    told = shell("metrics", "a", "b")
    assert told.err == "sdcore: 2 pictures of a and 0 of b belong to none of the other\n"
    assert str(told.paths[0]) == "2 pairs, 2 of them the same to the bit"
    assert not any("psnr" in str(line) for line in told.paths)


def test_the_command(shell: Shell) -> None:
    """Two ways of drawing pair by prompt and seed."""
    shell.sample("red", "--seed", "0-1", "--scheduler", "euler", "--out", "euler")
    shell.sample("red", "--seed", "0-2", "--cfg", 2, "--cfg", 3, "--out", "two")
    shell.sample("red", "--seed", "0-2", "--scheduler", "heun", "--out", "heun")
    Path("euler/red-0.png").rename("euler/other-0.png")
    Path("euler/red-1.png").rename("euler/other-1.png")
    told = shell("metrics", "euler", "heun", "--json")
    assert told.status == 0, told.err
    found = json.loads("\n".join(map(str, told.paths)))
    assert [each["name"] for each in found["each"]] == ["red, seed 0", "red, seed 1"]
    assert found["rmse"] == pytest.approx(np.mean([each["rmse"] for each in found["each"]]))
    same = shell("metrics", "heun", "heun")
    assert str(same.paths[0]) == "3 pairs, 3 of them the same to the bit"
    twice = shell("metrics", "two", "euler")
    assert twice.status == 2
    assert "have the same prompt and seed" in twice.err


def test_the_clip_score(tiny_clip: Path, shell: Shell) -> None:
    drawn = shell.sample("red", "--seed", "0-1").paths
    found = clip_scores(drawn, str(tiny_clip))
    from transformers import CLIPModel, CLIPProcessor

    model, processor = (kind.from_pretrained(tiny_clip) for kind in (CLIPModel, CLIPProcessor))
    with torch.inference_mode():
        images = processor(images=[Image.open(each) for each in drawn], return_tensors="pt")
        text = processor(text=["red"], return_tensors="pt")
        out = model(**images, **text)
        cosines = out.logits_per_image[:, 0] / model.logit_scale.exp()
    assert found == pytest.approx((100 * cosines).clamp_min(0).tolist(), rel=1e-4, abs=1e-4)


@pytest.fixture(scope="module")
def tiny_clip(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP model with the tiny model's tokenizer."""
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTokenizer,
    )

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = CLIPTokenizer.from_pretrained(tiny_path / "tokenizer")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2, "projection_dim": 8}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        CLIPModel(
            CLIPConfig(
                text_config={**small, "vocab_size": len(tokenizer),
                             "eos_token_id": tokenizer.eos_token_id},
                vision_config={**small, "image_size": 32, "patch_size": 8},
                projection_dim=8,
            )
        ).save_pretrained(folder)  # fmt: skip
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessor(**size), tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("option", ["--weights", "--lpips", "--clip"])
def test_weights_that_are_none(option: str, shell: Shell) -> None:
    """Without the package, or without weights: one line, and no code of a file is run."""
    for folder in ("a", "b"):
        for name in ("1.png", "2.png"):
            picture(Path(folder, name), 0)
    Path("evil.pt").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    result = shell("metrics", "a", "b", option, "evil.pt")
    assert result.status == 2
    assert result.err.count("\n") == 1
    assert not Path("ran").exists()


def optional(name: str) -> Any:
    """A module of the extra `metrics`; where it is not there, or of no use here, the test skips."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # torchvision's, beside another build of torch
        pytest.skip(f"{name}: {error}")


def test_a_package_that_does_not_import(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchvision beside a torch of another build: one line."""
    Path("torchvision.py").write_text("raise RuntimeError('operator torchvision::nms')")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    picture(Path("a", "1.png"), 0)
    result = shell("metrics", "a", "a", "--lpips", "alexnet.pth")
    assert result.status == 2
    assert result.err == (
        "sdcore: LPIPS needs torchvision, which is installed and does not import: RuntimeError: "
        "operator torchvision::nms\n"
    )


def test_lpips_of_alexnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchmetrics' function has it of the same weights; other weights are refused."""
    torchvision, torchmetrics = (optional(each) for each in ("torchvision", "torchmetrics"))
    weights = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"  # where it looks first
    weights.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), weights)
    for folder, seed in (("a", 0), ("b", 1)):
        picture(tmp_path / folder / "x.png", seed, side=64)
    pairs = pairs_of(tmp_path / "a", tmp_path / "b")
    apart = lpips(pairs, str(weights))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    theirs = torchmetrics.functional.image.learned_perceptual_image_patch_similarity(
        *(to_tensor(Image.open(path)) for path in (pairs[0].a, pairs[0].b)), net_type="alex"
    )
    assert apart == [pytest.approx(theirs.item(), rel=1e-6)]
    assert apart[0] > 0
    assert lpips(pairs_of(tmp_path / "a", tmp_path / "a"), str(weights)) == [0]
    torch.save({"x": torch.zeros(1)}, tmp_path / "none.pt")
    with pytest.raises(InputError, match="holds no AlexNet"):
        lpips(pairs, str(tmp_path / "none.pt"))


@pytest.mark.slow
def test_fid_and_kid_of_inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch-fidelity has them of the same folders and weights; FID by our formula too."""
    fidelity = optional("torch_fidelity")
    module = optional("torch_fidelity.feature_extractor_inceptionv3")
    with monkeypatch.context() as patch:  # random weights in its own form
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        inception = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    for layer in inception.modules():  # so that what is seen does not fade from layer to layer
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    weights = tmp_path / "inception.pth"
    torch.save(inception.state_dict(), weights)
    sets = {
        folder: [picture(tmp_path / folder / f"{n}.png", n + first) for n in range(3)]
        for folder, first in (("a", 0), ("b", 10))
    }
    found = inception_distances(sets["a"], sets["b"], str(weights))
    theirs = fidelity.calculate_metrics(
        input1=str(tmp_path / "a"), input2=str(tmp_path / "b"), fid=True, kid=True, cuda=False,
        kid_subset_size=3, feature_extractor_weights_path=str(weights), verbose=False, cache=False,
    )  # fmt: skip
    assert found == {
        "fid": pytest.approx(theirs["frechet_inception_distance"], rel=1e-9),
        "kid": pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9),
    }
    with torch.inference_mode():
        features = [
            inception(torch.cat([torch.tensor(np.array(Image.open(path))).permute(2, 0, 1)[None]
                                 for path in paths]))[0]
            for paths in sets.values()
        ]  # fmt: skip
    assert found["fid"] > 1e-6
    assert frechet(*features) == pytest.approx(found["fid"], rel=1e-3)
