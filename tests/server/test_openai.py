"""OpenAI's images API, by raw requests; the SDK is in test_clients.py."""

import json
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdcore.server.worker import Worker
from tests.server.pictures import coded, opened, png_of, settings_in

SMALL: dict[str, Any] = {"size": "64x64", "num_inference_steps": 2, "seed": 3}
URL = "/v1/images/generations"


def square(colour: str = "red", side: int = 64) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def test_pictures_in_base64_whatever_is_said_of_the_form(client: TestClient) -> None:
    answer = client.post(URL, json={"prompt": "a boat", "n": 2, **SMALL})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert isinstance(body["created"], int)
    assert [opened(each["b64_json"]).size for each in body["data"]] == [(64, 64)] * 2
    assert [each["seed"] for each in body["data"]] == [3, 4]
    assert body["size"] == "64x64"


def test_a_url_is_one_that_holds_the_picture(client: TestClient) -> None:
    body = client.post(URL, json={"prompt": "a", "response_format": "url", **SMALL}).json()
    url = body["data"][0]["url"]
    assert url.startswith("data:image/png;base64,")
    assert opened(url.partition(",")[2]).size == (64, 64)


def test_extension_fields_and_every_option_by_its_name_are_followed(client: TestClient) -> None:
    fields = {
        "negative_prompt": "rain", "guidance_scale": 3, "scheduler": "euler", "spacing": "karras",
        "clip_skip": 2, **SMALL,
    }  # fmt: skip
    body = client.post(URL, json={"prompt": "a", "model": "other", **fields}).json()
    settings = settings_in(body["data"][0]["b64_json"])
    assert (settings.negative, settings.cfg, settings.steps) == ("rain", 3.0, 2)
    assert (settings.scheduler, settings.spacing, settings.clip_skip) == ("euler", "karras", 2)


def test_the_size_is_the_models_own_where_none_is_said(client: TestClient) -> None:
    body = client.post(URL, json={"prompt": "a", "num_inference_steps": 1, "size": "auto"}).json()
    assert body["size"] == "32x32"


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"prompt": 3}, 400, "prompt"),
        ({"n": 11}, 400, "n"),
        ({"size": "big"}, 400, "size"),
        ({"size": "99999x64"}, 400, "width"),
        ({"size": "63x64"}, 400, None),
        ({"background": "transparent"}, 400, "background"),
        ({"output_format": "gif"}, 400, "output_format"),
        ({"model": "dall-e-3"}, 404, "model"),
        ({"scheduler": "mine.py"}, 400, "scheduler"),
        ({"scheduler": "eulr"}, 400, None),
        ({"num_inference_steps": 2, "steps": 3}, 400, "num_inference_steps"),
        ({"stream": True, "n": 2}, 400, "n"),
        ({"seed": "3"}, 400, "seed"),
        ({"seeds": [1, 2]}, 400, "seeds"),
        ({"latents": "noise.safetensors"}, 400, "latents"),
        ({"width": 64}, 400, "width"),
        ({"size": "\uff16\uff14x64"}, 400, "size"),
    ],
)
def test_errors_have_openais_shape(
    client: TestClient, fields: dict[str, Any], status: int, param: str | None
) -> None:
    answer = client.post(URL, json={"prompt": "a", **SMALL, **fields})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["message"]
    assert "Value error" not in error["message"]


def test_an_unknown_model_has_its_code(client: TestClient) -> None:
    error = client.post(URL, json={"prompt": "a", "model": "gpt-image-1"}).json()["error"]
    assert (error["code"], error["type"]) == ("model_not_found", "not_found_error")
    assert "tiny" in error["message"]


def test_fields_that_nobody_knows_are_ignored(client: TestClient) -> None:
    fields = {"user": "me", "moderation": "low", "wat": [1], **SMALL}
    assert client.post(URL, json={"prompt": "a", **fields}).status_code == 200


def test_what_changes_nothing_here_is_told(client: TestClient) -> None:
    body = client.post(URL, json={"prompt": "a", "quality": "hd", **SMALL}).json()
    assert body["sdcore"]["notes"] == ["quality is not followed"]


def test_a_stream_has_partial_pictures_and_then_the_whole_one(client: TestClient) -> None:
    fields = {"prompt": "a", **SMALL, "num_inference_steps": 6, "stream": True, "partial_images": 2}
    answer = client.post(URL, json=fields)
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    names = [block[0].removeprefix("event: ") for block in blocks]
    assert names == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    events = [json.loads(block[1].removeprefix("data: ")) for block in blocks]
    assert [each["type"] for each in events] == names
    assert [each.get("partial_image_index") for each in events] == [0, 1, None]
    assert all(opened(each["b64_json"]).size == (64, 64) for each in events)
    del fields["stream"], fields["partial_images"]
    whole = client.post(URL, json=fields).json()["data"][0]["b64_json"]
    assert opened(events[-1]["b64_json"]).tobytes() == opened(whole).tobytes()


def test_settings_that_no_jpeg_has_room_for_are_refused_before_anything_is_drawn(
    client: TestClient, worker: Worker
) -> None:
    steps: list[int] = []
    worker.observers.append(lambda job: steps.extend(e.id for e in job.events if e.kind == "step"))
    long = {"prompt": "\u5bb6" * 9000, "negative_prompt": "\u96e8" * 9000, "output_format": "jpeg"}
    for more in ({}, {"model": "other"}, {"stream": True}):  # "other" is not in memory yet
        answer = client.post(URL, json={**SMALL, **long, **more})
        if "stream" not in more:
            assert answer.status_code == 400, answer.text
        assert "a JPEG has room for" in answer.text
    assert steps == []
    assert client.post(URL, json={**SMALL, **long, "output_format": "webp"}).status_code == 200


def test_an_edit_repaints_where_the_mask_is_transparent(client: TestClient) -> None:
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (32, 0, 64, 64))
    files = {"image": ("a.png", png_of(square()), "image/png"),
             "mask": ("m.png", png_of(mask), "image/png")}  # fmt: skip
    data = {"prompt": "a house", "num_inference_steps": "2", "seed": "3", "paste": "true"}
    answer = client.post("/v1/images/edits", data=data, files=files)
    assert answer.status_code == 200, answer.text
    picture = opened(answer.json()["data"][0]["b64_json"]).convert("RGB")
    assert picture.crop((0, 0, 32, 64)).getcolors() == [(32 * 64, (255, 0, 0))]
    assert picture.crop((32, 0, 64, 64)).getcolors() != [(32 * 64, (255, 0, 0))]


def test_an_edit_takes_open_webuis_brackets_and_data_urls(client: TestClient) -> None:
    data = {"prompt": "a", "num_inference_steps": "2", "seed": "3", "strength": "0.5"}
    files = [("image[]", ("a.png", png_of(square()), "image/png"))]
    by_form = client.post("/v1/images/edits", data=data, files=files)
    url = f"data:image/png;base64,{coded(square())}"
    body = {"prompt": "a", "num_inference_steps": 2, "seed": 3, "strength": 0.5,
            "images": [{"image_url": url}]}  # fmt: skip
    by_json = client.post("/v1/images/edits", json=body)
    both = [opened(each.json()["data"][0]["b64_json"]).tobytes() for each in (by_form, by_json)]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ([], "image"),
        ([("image", b"no picture")], "image"),
        ([("image[]", png_of(square())), ("image[]", png_of(square()))], "image"),
        ([("image", png_of(square())), ("mask", png_of(square()))], "mask"),
        ([("image", png_of(square())), ("wat", b"x")], "wat"),
    ],
    ids=["none", "garbled", "two", "mask without alpha", "another file"],
)
def test_an_edit_that_cannot_be_done_says_why(
    client: TestClient, files: list[tuple[str, bytes]], named: str
) -> None:
    parts = [(name, ("a.png", content, "image/png")) for name, content in files]
    answer = client.post(
        "/v1/images/edits", data={"prompt": "a"}, files=parts or [("x", ("", b""))]
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == named or not files


def test_models_are_the_list(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [each["id"] for each in listed["data"]] == ["tiny", "other"]
    assert client.get("/v1/models/TINY").json()["id"] == "tiny"
    assert client.get("/v1/models/..%2f..%2fetc").status_code == 404
