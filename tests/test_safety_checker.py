"""The published safety checker, beside diffusers' own."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sdcore.errors import InputError
from sdcore.filters import filtered, open_filters
from sdcore.safety_checker import SafetyChecker
from tests.cli.shell import Shell, pixels
from tests.test_marks import SETTINGS

COUNT = 32


def _pictures() -> list[Image.Image]:
    """Of all kinds of sizes: wide, high, smaller than what the CLIP sees."""
    draw = np.random.default_rng(0)
    sizes = [(int(w), int(h)) for w, h in draw.integers(20, 90, (COUNT, 2))]
    return [
        Image.fromarray(draw.integers(0, 256, (4, 4, 3), np.uint8)).resize(size) for size in sizes
    ]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small random checker as diffusers writes it, and diffusers' own of it."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessorPil

    root = tmp_path_factory.mktemp("sd")
    vision = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2,
              "num_attention_heads": 4, "image_size": 32, "patch_size": 8}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))
        for parameter in theirs.vision_model.parameters():
            parameter.data.normal_(0, 0.3)
        theirs.concept_embeds.data.normal_()
        theirs.special_care_embeds.data.normal_()
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    theirs.eval()
    seen = [_theirs(theirs, processor, picture)[2:] for picture in _pictures()]
    # Thresholds that pictures are exactly at: 4 of them at a concept each, 1 at special care.
    concepts = np.stack([cosine for cosine, _ in seen])
    special = np.stack([cosine for _, cosine in seen])
    theirs.concept_embeds_weights.data = torch.from_numpy(
        np.quantile(concepts, 0.98, axis=0)
    ).float()
    theirs.special_care_embeds_weights.data = torch.from_numpy(
        np.quantile(special, 0.9, axis=0)
    ).float()
    for n in range(4):
        theirs.concept_embeds_weights.data[n] = float(concepts[n, n])
    theirs.special_care_embeds_weights.data[0] = float(special[7, 0])
    theirs.save_pretrained(root / "safety_checker")
    processor.save_pretrained(root / "feature_extractor")
    return root, (theirs, processor)


def _theirs(checker: Any, processor: Any, picture: Image.Image) -> tuple[Any, ...]:
    """What diffusers says of a picture: flag, scores, and the cosines behind them."""
    inside: dict[str, Any] = {}

    def look(frame: FrameType, event: str, value: Any) -> None:
        if (
            event == "return"
            and frame.f_code.co_name == "forward"
            and "result_img" in frame.f_locals
        ):
            inside.update(frame.f_locals)

    clip_input = processor(picture, return_tensors="pt").pixel_values
    sys.setprofile(look)
    try:
        _, flags = checker(clip_input=clip_input, images=[np.asarray(picture) / 255])
    finally:
        sys.setprofile(None)
    return flags[0], inside["result"][0], inside["cos_dist"][0], inside["special_cos_dist"][0]


def test_scores_and_flags_are_diffusers(published: tuple[Path, Any]) -> None:
    root, theirs = published
    checker = SafetyChecker(str(root))
    flags, exact = [], 0
    for picture in _pictures():
        flag, scores, *_ = _theirs(*theirs, picture)
        ours = checker.scores(picture)
        assert ours.flagged == flag
        assert ours.special == tuple(map(float, scores["special_scores"].values()))
        assert ours.concepts == tuple(map(float, scores["concept_scores"].values()))
        flags.append(flag)
        exact += 0.0 in ours.concepts or 0.0 in ours.special
    assert exact >= 5
    assert 0 < sum(flags) < COUNT
    together = checker(_pictures())
    assert together[1] == flags


def test_both_spellings(published: tuple[Path, Any], tmp_path: Path) -> None:
    root, _ = published
    state = load_file(root / "safety_checker" / "model.safetensors")
    old = {
        key.replace("vision_model.", "vision_model.vision_model.", 1): t for key, t in state.items()
    }
    old["vision_model.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    assert set(old) != set(state)
    (tmp_path / "safety_checker").mkdir()
    save_file(old, tmp_path / "safety_checker" / "model.safetensors")
    for name in ("safety_checker/config.json", "feature_extractor/preprocessor_config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((root / name).read_text())
    here, there = SafetyChecker(str(root)), SafetyChecker(str(tmp_path / "safety_checker"))
    for picture in _pictures()[:3]:
        assert here.scores(picture) == there.scores(picture)


@pytest.mark.parametrize("action", ["black", "blur", "drop", "flag"])
def test_actions(published: tuple[Path, Any], action: str) -> None:
    (checker,) = open_filters(safety=str(published[0]), action=action)
    pictures = _pictures()
    flagged = 0
    done = filtered(pictures, [SETTINGS] * COUNT, [checker])
    for old, (new, settings) in zip(pictures, done, strict=True):
        if settings.flags:
            flagged += 1
            assert settings.flags == ("safety",)
            assert (new is None) == (action == "drop")
            if new is not None:
                assert new.size == old.size
                assert (new.getbbox() is None) == (action == "black")
                assert (new.tobytes() == old.tobytes()) == (action == "flag")
        else:
            assert new is not None
            assert new.tobytes() == old.tobytes()
    assert flagged


def test_the_command(shell: Shell, published: tuple[Path, Any], tmp_path: Path) -> None:
    root, _ = published
    state = load_file(root / "safety_checker" / "model.safetensors")
    state["concept_embeds_weights"] = torch.full_like(state["concept_embeds_weights"], -1.5)
    strict = tmp_path / "strict"
    (strict / "safety_checker").mkdir(parents=True)
    save_file(state, strict / "safety_checker" / "model.safetensors")
    config = (root / "safety_checker" / "config.json").read_text()
    (strict / "safety_checker" / "config.json").write_text(config)
    small = strict / "feature_extractor" / "preprocessor_config.json"
    small.parent.mkdir()
    small.write_text('{"size": 32, "crop_size": 32}')
    drawn = shell.sample("red", "--seed", 1, "--safety", strict)
    assert drawn.status == 0
    assert "'red', seed 1: flagged by safety\n" in drawn.err
    assert set(pixels(drawn.paths[0])) == {0}


@pytest.mark.parametrize("state", ["none", "no config", "no weights", "half", "other"])
def test_what_is_no_checker(published: tuple[Path, Any], tmp_path: Path, state: str) -> None:
    folder = tmp_path / "safety_checker"
    config = (published[0] / "safety_checker" / "config.json").read_text()
    weights = load_file(published[0] / "safety_checker" / "model.safetensors")
    if state != "none":
        folder.mkdir()
    if state in ("no weights", "half", "other"):
        (folder / "config.json").write_text("{}" if state == "other" else config)
    if state == "half":
        del weights["visual_projection.weight"], weights["concept_embeds"]
        save_file(weights, folder / "model.safetensors")
    messages = {
        "none": "has no folder safety_checker",
        "no config": "has no folder safety_checker",
        "no weights": "has no weights",
        "half": "2 missing: concept_embeds, visual_projection.weight",
        "other": "is of no safety checker|has no weights",
    }
    with pytest.raises(InputError, match=messages[state]):
        SafetyChecker(str(tmp_path)).scores(Image.new("RGB", (32, 32)))


def test_an_action_wants_a_checker() -> None:
    with pytest.raises(InputError, match="there is no folder nowhere"):
        open_filters(safety="nowhere")
    with pytest.raises(InputError, match="name its folder by --safety"):
        open_filters(action="blur")
