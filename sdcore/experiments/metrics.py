"""How far two sets of pictures are from each other: pair by pair, and as sets.

RMSE, PSNR and SSIM need nothing but the pictures. The others ask networks, whose weights the user
gives: CLIP score (transformers); FID and KID (torch-fidelity), LPIPS (torchmetrics): extra
`metrics`.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sdcore.errors import InputError
from sdcore.experiments.distances import rms
from sdcore.images import FORMATS, open_picture, psnr, read_settings, to_tensor
from sdcore.paths import path_of
from sdcore.user_file import said

_SHEET = re.compile(r"(sheet|steps|plot)(-\d+)?")  # as commands name what is made of many pictures
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class Pair:
    """A picture of each set that belong together."""

    name: str
    a: Path
    b: Path


@dataclass(frozen=True)
class Scores:
    """Of one pair. rmse: of pixels in 0 .. 255; psnr: dB; ssim: 1 for the same."""

    name: str
    rmse: float
    psnr: float
    ssim: float


def pictures_in(folder: str | Path) -> dict[str, Path]:
    """Every picture below a folder by its path in it, hidden folders and sheets left out.

    Raises InputError where there is none.
    """
    root = path_of(folder)
    if not root.is_dir():
        raise InputError(f"{root} is no folder")
    named = {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in ENDINGS and not _is_sheet(path)
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }  # fmt: skip
    if not named:
        raise InputError(f"{root} holds no pictures")
    return named


def _is_sheet(path: Path) -> bool:
    """Whether it is a sheet or a plot; one picture of that name has settings."""
    if _SHEET.fullmatch(path.stem) is None:
        return False
    try:
        read_settings(path)
    except InputError:
        return True
    return False


def pairs_of(a: str | Path, b: str | Path) -> list[Pair]:
    """The pictures of two folders that have the same path in them; where none has, the same prompt
    and seed in their settings.

    Raises InputError where nothing belongs together, or two of one folder have the same words.
    """
    one, other = pictures_in(a), pictures_in(b)
    same = [Pair(name, one[name], other[name]) for name in one if name in other]
    if same:
        return same
    said = [_by_words(each) for each in (one, other)]
    same = [Pair(f"{words[0]}, seed {words[1]}", path, said[1][words])
            for words, path in said[0].items() if words in said[1]]  # fmt: skip
    if not same:
        raise InputError(
            f"no picture of {a} and {b} has the same name, or the same prompt and seed"
        )
    return same


def _by_words(named: dict[str, Path]) -> dict[tuple[str, int], Path]:
    found: dict[tuple[str, int], Path] = {}
    for path in named.values():
        try:
            settings = read_settings(path)
        except InputError:
            continue
        words = settings.prompt, settings.seed
        if words in found:
            raise InputError(
                f"{found[words]} and {path} have the same prompt and seed: name both folders' "
                "pictures alike"
            )
        found[words] = path
    return found


def scores(pair: Pair) -> Scores:
    """RMSE, PSNR and SSIM. Raises InputError where the sizes differ."""
    a, b = (to_tensor(open_picture(path)) for path in (pair.a, pair.b))
    if a.shape != b.shape:
        sizes = [f"{each.shape[-1]}x{each.shape[-2]}" for each in (a, b)]
        raise InputError(f"{pair.name} is {sizes[0]} in one and {sizes[1]} in the other")
    return Scores(pair.name, rms(a - b) * 127.5, psnr(a, b), ssim(a, b))


def ssim(a: Tensor, b: Tensor, sigma: float = 1.5) -> float:
    """Structural similarity of images [1,3,H,W] in [-1, 1], the mean over pixels and channels.

    Wang et al. 2004, equation 13, with K = (0.01, 0.03) and a Gaussian window of 11 pixels; the
    five pixels at each edge, where the window is not whole, are left out. Of pictures smaller than
    the window the whole is one window.
    """
    x, y = ((each.double() + 1) / 2 for each in (a, b))
    side = min(11, *x.shape[-2:])
    steps = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    weights = torch.exp(-(steps**2) / (2 * sigma**2))
    window = torch.outer(weights, weights) / weights.sum() ** 2
    kernel = window.expand(x.shape[1], 1, side, side)

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, kernel, groups=values.shape[1])

    c1, c2 = 0.01**2, 0.03**2
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    top = (2 * mx * my + c1) * (2 * cov + c2)
    return (top / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean().item()


def frechet(a: Tensor, b: Tensor) -> float:
    """The Frechet distance of Gaussians through two sets of features [N, D]; FID where they are
    Inception's (Heusel et al. 2017, equation 6). Biased upwards where N is small."""
    one, other = a.double(), b.double()
    apart = (one.mean(0) - other.mean(0)).square().sum()
    first, second = (torch.atleast_2d(each.T.cov()) for each in (one, other))
    # tr sqrt(S1 S2) = tr sqrt(R S2 R) with R = sqrt(S1), which is symmetric.
    values, vectors = torch.linalg.eigh(first)
    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    both = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return max(0.0, (apart + first.trace() + second.trace() - 2 * both).item())


def clip_scores(paths: Sequence[Path], folder: str, batch: int = 16) -> list[float]:
    """max(100 cos, 0) of each picture and the prompt in its settings (Hessel et al. 2021, without
    their factor), by a CLIP model in a folder of transformers. Raises InputError."""
    from transformers import CLIPModel, CLIPProcessor

    place = path_of(folder)
    if not (place / "config.json").is_file():
        raise InputError(f"{place} is no folder of a CLIP model: it has no config.json")
    words = [read_settings(path).prompt for path in paths]
    try:
        model: Any = CLIPModel.from_pretrained(place, local_files_only=True, use_safetensors=True)
        processor: Any = CLIPProcessor.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{place} cannot be read: {str(error).splitlines()[0]}") from None
    found: list[float] = []
    with torch.inference_mode():
        for i in range(0, len(paths), batch):
            images = [open_picture(path).convert("RGB") for path in paths[i : i + batch]]
            told = processor(
                text=words[i : i + batch], images=images, return_tensors="pt", padding=True,
                truncation=True,
            )  # fmt: skip
            out = model(**told)
            cosines = F.cosine_similarity(out.image_embeds, out.text_embeds)
            found += (100 * cosines).clamp_min(0).tolist()
    return found


def inception_distances(a: Sequence[Path], b: Sequence[Path], weights: str) -> dict[str, float]:
    """FID and KID by torch-fidelity, with Inception weights in its form. Raises InputError."""
    fidelity = _needed("torch_fidelity", "FID")
    least = min(len(a), len(b))
    if least < 2:
        raise InputError(
            "FID and KID need two pictures of each folder, and mean little below 10,000"
        )
    with _clean(weights) as file:
        told = fidelity.calculate_metrics(
            input1=_Pictures(a), input2=_Pictures(b), fid=True, kid=True, verbose=False,
            kid_subset_size=min(1000, least), feature_extractor_weights_path=str(file),
            cuda=torch.cuda.is_available(), cache=False, save_cpu_ram=True,
        )  # fmt: skip
    return {
        "fid": float(told["frechet_inception_distance"]),
        "kid": float(told["kernel_inception_distance_mean"]),
    }


def lpips(pairs: Sequence[Pair], weights: str) -> list[float]:
    """LPIPS of each pair (Zhang et al. 2018) by torchmetrics, whose wheel has the linear heads, on
    AlexNet's weights in torchvision's form. Raises InputError."""
    _needed("torchvision", "LPIPS")
    module = _needed("torchmetrics.functional.image.lpips", "LPIPS")
    net: Any = module._NoTrainLpips(net="alex", pnet_rand=True)
    own = net.net.state_dict()  # slice2.3.weight; in torchvision features.3.weight
    given = _state(path_of(weights))
    try:
        net.net.load_state_dict({name: given[f"features.{name.partition('.')[2]}"] for name in own})
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{weights} holds no AlexNet of torchvision: {error}") from None
    with torch.inference_mode():
        return [
            float(net(*(to_tensor(open_picture(path)) for path in (pair.a, pair.b))).squeeze())
            for pair in pairs
        ]


class _Pictures(torch.utils.data.Dataset):
    """Pictures as torch-fidelity takes them: uint8 [3,H,W]."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor:
        picture = open_picture(self.paths[number], FORMATS).convert("RGB")
        return _bytes(picture)


def _bytes(picture: Image.Image) -> Tensor:
    return ((to_tensor(picture)[0] + 1) * 127.5).round().to(torch.uint8)


def _needed(module: str, what: str) -> Any:
    """A module of the extra `metrics`. Raises InputError where it is not there, or does not import:
    torchvision and what needs it do not beside a torch that is not of its build."""
    package = module.partition(".")[0].replace("_", "-")
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise InputError(f"{what} needs {package}: pip install 'sdcore[metrics]'")
    try:
        return importlib.import_module(module)
    except Exception as error:  # also a RuntimeError, of operators that are not there
        raise InputError(
            f"{what} needs {package}, which is installed and does not import: {said(error)}"
        ) from error


def _state(path: Path) -> dict[str, Tensor]:
    """Weights by name from a .safetensors or a .pt file, of which no code is run."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except Exception as error:  # whatever the unpickler stumbles on, or refuses
        raise InputError(f"{path} holds no plain weights: {str(error).splitlines()[0]}") from None


@contextmanager
def _clean(weights: str) -> Iterator[Path]:
    """The weights in a file of ours: torch-fidelity unpickles, and would run any code in theirs."""
    state = _state(path_of(weights))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pt"
        torch.save(state, path)
        yield path
