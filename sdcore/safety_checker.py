"""The safety checker that Stable Diffusion 1.x is published with, out of a model's folder.

A CLIP looks at the picture; what it sees is compared with 17 concepts that nobody wrote down in
words, and 3 of special care, each of which makes the other 17 stricter (Rando et al. 2022, "Red-
Teaming the Stable Diffusion Safety Filter", arXiv 2210.04610). It errs in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor, nn

from sdcore.checkpoints.load import load_strictly
from sdcore.checkpoints.read import Weights, read_json
from sdcore.checkpoints.weight_files import shards, weights_name
from sdcore.errors import InputError, unknown
from sdcore.fitting import to_rgb
from sdcore.paths import path_of
from sdcore.written import Written, format

if TYPE_CHECKING:
    from sdcore.settings import Settings

ACTIONS = ("black", "blur", "drop", "flag")
FOLDER = "safety_checker"
_EXTRA = 0.01  # what each threshold is lower by where there is something of special care
_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the pictures that CLIP was trained on
_STD = (0.26862954, 0.26130258, 0.27577711)
_EMBEDS = ("concept_embeds", "special_care_embeds")
_WEIGHTS = ("concept_embeds_weights", "special_care_embeds_weights")


@dataclass(frozen=True)
class Scores:
    """By how much a picture is above each threshold, rounded to three places as in diffusers."""

    special: tuple[float, ...]
    concepts: tuple[float, ...]

    @property
    def flagged(self) -> bool:
        return any(score > 0 for score in self.concepts)


@dataclass(frozen=True)
class SafetyChecker:
    """A filter of `sdcore.filters`. Its 1.2 GB are read when the first picture comes.

    folder: a model's, with `safety_checker` in it, or that folder itself.
    action: what becomes of a picture that is flagged: "black", "blur", "drop" (nobody gets it) or
        "flag" (it stays as it is).

    Raises InputError, at once, where there is no such checker or no such action.
    """

    folder: str
    action: str = "black"

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise unknown("action", self.action, ACTIONS)
        _ = self._files, self._config

    @property
    def name(self) -> str:
        return "safety"

    @property
    def written(self) -> str:
        return format(Written("safety", {"folder": self.folder, "action": self.action}))

    def __call__(
        self, images: Sequence[Image.Image], settings: Sequence[Settings] = (), **info: Any
    ) -> tuple[list[Image.Image | None], list[bool]]:
        device = settings[0].device if settings else "cpu"
        flags = [self.scores(image, device).flagged for image in images]
        shown = [self._changed(i) if f else i for i, f in zip(images, flags, strict=True)]
        return shown, flags

    def _changed(self, image: Image.Image) -> Image.Image | None:
        if self.action == "black":
            return Image.new("RGB", image.size)
        if self.action == "blur":
            return image.filter(ImageFilter.GaussianBlur(max(image.size) / 16))
        return None if self.action == "drop" else image

    @torch.inference_mode()
    def scores(self, image: Image.Image, device: str = "cpu") -> Scores:
        """Of one picture, looked at alone: they do not depend on what else is drawn."""
        checker = self._checker.to(device)
        seen = checker(self._pixels(image).to(device))
        embeds, weights = ({name: checker.get_parameter(name) for name in names}
                           for names in (_EMBEDS, _WEIGHTS))  # fmt: skip
        cosines = [_cosines(seen, embeds[name]) for name in _EMBEDS]
        concepts, special = ([w.item() for w in weights[name]] for name in _WEIGHTS)
        extra, of_special = 0.0, []
        for cosine, threshold in zip(cosines[1], special, strict=True):
            of_special.append(round(cosine - threshold + extra, 3))
            extra = _EXTRA if of_special[-1] > 0 else extra
        of_concepts = [round(c - t + extra, 3) for c, t in zip(cosines[0], concepts, strict=True)]
        return Scores(tuple(map(float, of_special)), tuple(map(float, of_concepts)))

    def _pixels(self, image: Image.Image) -> Tensor:
        """[1,3,n,n] as CLIP sees it: the shorter side scaled to n, the middle cut out."""
        said = self._preprocessor
        short = _length(said.get("size"), "shortest_edge")
        cut = _length(said.get("crop_size"), "height")
        width, height = image.size
        scale = short / min(width, height)
        sides = [short if side == min(width, height) else int(side * scale)
                 for side in (width, height)]  # fmt: skip
        small = to_rgb(image).resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
        left, top = ((side - cut) // 2 for side in sides)
        pixels = np.asarray(small.crop((left, top, left + cut, top + cut)), np.float32) / 255
        mean, std = (np.asarray(said.get(name, usual), np.float32)
                     for name, usual in (("image_mean", _MEAN), ("image_std", _STD)))  # fmt: skip
        return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)[None]

    # --- what is in the folder ---------------------------------------------------------------

    @cached_property
    def _place(self) -> Path:
        folder = path_of(self.folder)
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder} with a safety checker in it")
        inner = folder / FOLDER
        place = inner if inner.is_dir() else folder
        if not (place / "config.json").is_file() or place.name != FOLDER:
            raise InputError(
                f"{folder} has no folder {FOLDER}: name one of a Stable Diffusion 1.x in the "
                "diffusers layout (SDXL and single files come without one)"
            )
        return place

    @cached_property
    def _files(self) -> tuple[Path, ...]:
        names = {each.name for each in self._place.iterdir()}
        name = weights_name("text_encoder", names)  # named as transformers names them
        if name is None:
            raise InputError(f"{self._place} has no weights (model.safetensors)")
        files = shards(self._place / name) if name.endswith(".json") else (name,)
        return tuple(self._place / file for file in files)

    @cached_property
    def _config(self) -> Mapping[str, Any]:
        config = read_json(self._place / "config.json")
        if not isinstance(config.get("vision_config"), dict):
            raise InputError(f"{self._place / 'config.json'} is of no safety checker")
        return config

    @cached_property
    def _preprocessor(self) -> Mapping[str, Any]:
        path = self._place.parent / "feature_extractor" / "preprocessor_config.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def _checker(self) -> _Checker:
        weights = Weights(self._files)
        shapes = {name: weights.info[name].shape for name in (*_EMBEDS, *_WEIGHTS)
                  if name in weights.info}  # fmt: skip
        with torch.device("meta"):
            checker = _Checker(self._config, shapes)
        load_strictly(
            checker, weights, checker.spelling, str(self._files[0]), dtype=torch.float32
        )  # fmt: skip
        checker.count_positions()
        return checker.eval().requires_grad_(False)


class _Checker(nn.Module):
    """A picture [B,3,n,n] to its place among the concepts [B,D]."""

    def __init__(self, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModel

        vision = CLIPVisionConfig(**config["vision_config"])
        width = config.get("projection_dim", 768)
        self.vision_model = CLIPVisionModel(vision)
        self.visual_projection = nn.Linear(vision.hidden_size, width, bias=False)
        usual = {"concept_embeds": (17, width), "special_care_embeds": (3, width)}
        for name in (*_EMBEDS, *_WEIGHTS):
            shape = shapes.get(name, usual.get(name, (1,)))
            self.register_parameter(name, nn.Parameter(torch.empty(*shape)))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.visual_projection(self.vision_model(pixels).pooler_output)

    def spelling(self, key: str) -> Mapping[str, Any]:
        """The vision model's layers stand one or two `vision_model.` deep: as published, and as
        transformers 5.6 and newer names them, in the file as in the module."""
        if key.endswith("position_ids"):
            return {}
        inner = key.removeprefix("vision_model.")
        if inner != key:
            deep = hasattr(self.vision_model, "vision_model")
            key = f"vision_model.{'vision_model.' * deep}{inner.removeprefix('vision_model.')}"
        return {key: lambda tensor: tensor}

    def count_positions(self) -> None:
        """What no file holds: 0, 1, 2 ..."""
        for name, held in [*self.named_buffers()]:
            module, _, last = name.rpartition(".")
            if held.is_meta:
                setattr(self.get_submodule(module), last, torch.arange(held.shape[-1])[None])


def _cosines(seen: Tensor, embeds: Tensor) -> np.ndarray[Any, Any]:
    """Of one picture with each concept, float32."""
    return torch.mm(F.normalize(seen), F.normalize(embeds).t())[0].cpu().float().numpy()


def _length(said: Any, name: str) -> int:
    """A size as both forms of a preprocessor's configuration write it."""
    length = said.get(name, 224) if isinstance(said, dict) else said
    return length if isinstance(length, int) and length > 0 else 224
