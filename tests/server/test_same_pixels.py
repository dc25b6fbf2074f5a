"""The same request through every face, and through the command line, is the same picture."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdcore.images import read_settings
from sdcore.server import drawings
from sdcore.server.asked import read
from sdcore.server.limits import Limits
from sdcore.server.models import Models
from sdcore.server.worker import Worker
from tests.server.conftest import client_of
from tests.server.pictures import coded


def pixels(data: str | Path) -> bytes:
    source = data if isinstance(data, Path) else io.BytesIO(base64.b64decode(data))
    return Image.open(source).convert("RGB").tobytes()


def test_all_faces_and_the_command_draw_the_same(
    client: TestClient, command: Any, tiny_path: Path, tmp_path: Path
) -> None:
    size = {"width": 64, "height": 64}
    status, path, _ = command(
        *("sample", "a red house", "--negative", "rain", "--model", tiny_path, "--seed", 7),
        *("--steps", 3, "--cfg", 5, "--width", 64, "--height", 64, "--device", "cpu"),
    )
    assert status == 0
    theirs = {"prompt": "a red house", "negative_prompt": "rain", "seed": 7,
              "num_inference_steps": 3, "guidance_scale": 5}  # fmt: skip
    generated = client.post("/generate", json={**theirs, **size}).json()["image_base64"]
    images = client.post("/v1/images/generations", json={**theirs, "size": "64x64"}).json()
    assert pixels(generated) == pixels(images["data"][0]["b64_json"]) == pixels(path)


def test_a1111s_words_and_ours_draw_the_same(
    client: TestClient, command: Any, tiny_path: Path
) -> None:
    status, path, _ = command(
        *("sample", "a (red:1.3) house", "--negative", "rain", "--model", tiny_path, "--seed", 7),
        *("--steps", 3, "--cfg", 5, "--width", 64, "--height", 64, "--device", "cpu"),
        *("--grammar", "a1111", "--scheduler", "Euler a", "--spacing", "a1111:karras"),
        *("--clip-skip", 2),
    )
    assert status == 0
    fields = {
        "prompt": "a (red:1.3) house", "negative_prompt": "rain", "seed": 7, "steps": 3,
        "cfg_scale": 5, "width": 64, "height": 64, "sampler_name": "Euler a",
        "scheduler": "Karras", "override_settings": {"CLIP_stop_at_last_layers": 2},
    }  # fmt: skip
    drawn = client.post("/sdapi/v1/txt2img", json=fields).json()["images"][0]
    assert pixels(drawn) == pixels(path)
    images = {
        "prompt": "a (red:1.3) house", "negative": "rain", "seed": 7, "steps": 3, "cfg": 5,
        "size": "64x64", "scheduler": "Euler a", "spacing": "a1111:karras", "clip_skip": 2,
        "grammar": "a1111",
    }  # fmt: skip
    other = client.post("/v1/images/generations", json=images).json()["data"][0]["b64_json"]
    assert pixels(other) == pixels(path)


def test_a_picture_and_a_mask_give_the_same(
    client: TestClient, command: Any, tiny_path: Path, tmp_path: Path
) -> None:
    picture = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 64))
    picture.save(tmp_path / "a.png")
    mask.save(tmp_path / "m.png")
    status, path, _ = command(
        *("sample", "a house", "--model", tiny_path, "--seed", 7, "--steps", 4, "--cfg", 5),
        *("--image", tmp_path / "a.png", "--mask", tmp_path / "m.png", "--strength", 0.75),
        *("--grammar", "a1111", "--scheduler", "Euler", "--paste", "--fit", "stretch"),
        *("--mask-blur", 2, "--device", "cpu", "--negative", ""),
    )
    assert status == 0
    fields = {
        "prompt": "a house", "seed": 7, "steps": 4, "cfg_scale": 5, "width": 64, "height": 64,
        "init_images": [coded(picture)], "mask": coded(mask), "mask_blur": 2,
        "inpainting_fill": 1, "inpaint_full_res": False, "sampler_name": "Euler",
    }  # fmt: skip
    drawn = client.post("/sdapi/v1/img2img", json=fields).json()["images"][0]
    assert pixels(drawn) == pixels(path)


def test_the_picture_of_an_answer_is_drawn_again_by_its_settings(
    client: TestClient, command: Any, tmp_path: Path
) -> None:
    fields = {"prompt": "a", "seed": 5, "num_inference_steps": 2, "width": 64, "height": 64}
    answer = client.post("/generate", json=fields).json()["image_base64"]
    (tmp_path / "theirs.png").write_bytes(base64.b64decode(answer))
    status, path, _ = command("rerun", tmp_path / "theirs.png")
    assert status == 0
    assert pixels(path) == pixels(answer)
    assert read_settings(path) == read_settings(tmp_path / "theirs.png")


def test_requests_in_one_batch_are_to_the_bit_what_they_are_alone(tiny_models: Models) -> None:
    limits = Limits(batch=4)
    asked = [
        read({"prompt": prompt, "seed": seed, "steps": 3, "width": 64, "height": 64,
              "scheduler": "euler_a", "grammar": "a1111"}, tiny_models, limits)
        for prompt, seed in (("a red house", 1), ("a (blue:1.4) boat at night", 2), ("", 3))
    ]  # fmt: skip
    batching, alone = Worker(tiny_models, limits), Worker(tiny_models, Limits())
    together = [drawings.submit(batching, each) for each in asked]
    batching.start()
    alone.start()
    single = [drawings.submit(alone, each) for each in asked]
    assert all(job.wait(240) for job in (*together, *single))
    sizes = [e.data["batch"] for job in together for e in job.events if e.kind == "step"]
    assert sizes == [3] * 9
    for one, other in zip(together, single, strict=True):
        assert one.result[0].picture.tobytes() == other.result[0].picture.tobytes()
        assert one.result[0].settings == other.result[0].settings
    assert batching.stop()
    assert alone.stop()


def test_what_differs_in_more_than_words_and_seed_is_not_batched(tiny_models: Models) -> None:
    limits = Limits(batch=4)
    worker = Worker(tiny_models, limits)
    same: dict[str, Any] = {"prompt": "a", "seed": 1, "steps": 2, "width": 64, "height": 64}
    picture = Image.new("RGB", (64, 64))
    more = [{}, {"steps": 3}, {"width": 32}, {"cfg": 3}, {"scheduler": "heun"}, {"clip_skip": 2},
            {"image": picture}, {"model": "other"}, {"image": picture}]  # fmt: skip
    jobs = [drawings.submit(worker, read({**same, **own}, tiny_models, limits)) for own in more]
    worker.start()
    assert all(job.wait(240) for job in jobs)
    for job in jobs:
        assert job.state == "done", job.error
        assert {e.data["batch"] for e in job.events if e.kind == "step"} == {1}
    assert worker.stop()


def test_one_of_a_batch_that_is_cancelled_leaves_the_others(tiny_models: Models) -> None:
    limits = Limits(batch=2)
    worker = Worker(tiny_models, limits)
    same = {"prompt": "a", "steps": 20, "width": 64, "height": 64}
    asked = [read({**same, "seed": seed}, tiny_models, limits) for seed in (1, 2)]
    first = drawings.submit(worker, asked[0], lambda job, *_: worker.cancel(job))
    second = drawings.submit(worker, asked[1])
    worker.start()
    assert first.wait(240)
    assert second.wait(240)
    assert (first.state, first.result) == ("cancelled", None)
    assert second.state == "done"
    assert worker.stop()


@pytest.mark.parametrize("hidden", [True, False])
def test_pictures_name_no_folder_where_others_may_ask(
    tiny_models: Models, tiny_path: Path, hidden: bool
) -> None:
    models = Models({"tiny": str(tiny_path)}, source={"device": "cpu"}, hidden=hidden)
    models._loaded = tiny_models._loaded
    with client_of(Worker(models, Limits())) as client:
        fields = {"prompt": "a", "seed": 5, "num_inference_steps": 1, "width": 64, "height": 64}
        answer = client.post("/generate", json=fields).json()["image_base64"]
    told = Image.open(io.BytesIO(base64.b64decode(answer))).text["sdcore"]  # type: ignore
    assert (str(tiny_path) in told) is not hidden
