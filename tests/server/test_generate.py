"""POST /generate, /health and /metrics: the published contract."""

import base64
import io
import re
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdcore.images import KEY
from sdcore.server.models import Models
from sdcore.server.worker import Worker
from sdcore.settings import Settings
from tests.server.conftest import client_of

SMALL: dict[str, Any] = {"num_inference_steps": 2, "width": 64, "height": 64}


def test_a_picture_its_time_and_its_seed(client: TestClient) -> None:
    answer = client.post("/generate", json={"prompt": "a red house", "seed": 7, **SMALL})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.keys() == {"image_base64", "generation_time", "seed", "metadata"}
    assert body["seed"] == 7
    assert body["generation_time"] > 0
    picture = Image.open(io.BytesIO(base64.b64decode(body["image_base64"])))
    assert picture.size == (64, 64)
    assert picture.format == "PNG"
    settings = Settings.from_json(picture.text[KEY])
    assert (settings.prompt, settings.seed, settings.steps, settings.cfg) == (
        "a red house",
        7,
        2,
        7.5,
    )


def test_a_seed_is_drawn_where_none_is_given(client: TestClient) -> None:
    seeds = {client.post("/generate", json={"prompt": "a", **SMALL}).json()["seed"] for _ in "ab"}
    assert len(seeds) == 2


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a" * 501}, "prompt"),
        ({"negative_prompt": "a" * 501}, "negative_prompt"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 151}, "num_inference_steps"),
        ({"num_inference_steps": 2.5}, "num_inference_steps"),
        ({"num_inference_steps": "2"}, "num_inference_steps"),
        ({"num_inference_steps": True}, "num_inference_steps"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"guidance_scale": 20.5}, "guidance_scale"),
        ({"guidance_scale": "7"}, "guidance_scale"),
        ({"width": 60}, "width"),
        ({"width": 1032}, "width"),
        ({"height": 65}, "height"),
        ({"stepz": 3}, "stepz"),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused_by_name(
    client: TestClient, fields: dict[str, Any], named: str
) -> None:
    answer = client.post("/generate", json={"prompt": "a", **SMALL, **fields})
    assert answer.status_code == 422
    assert named in [each["loc"][-1] for each in answer.json()["detail"]]


@pytest.mark.parametrize(
    "body",
    [
        '{"prompt": "a", "guidance_scale": NaN}',
        '{"prompt": "a", "guidance_scale": 1e999}',
        '{"prompt": "a", "guidance_scale": -Infinity}',
        '{"prompt": "a", "seed": 1e999}',
        '{"prompt": "\\ud800"}',
        '{"prompt": "a\\u0000b"}',
        '{"prompt": "a", "seed": ' + "9" * 5000 + "}",
        "[" * 100_000,
        "null",
        "",
        "\xff",
    ],
    ids=["nan", "1e999", "infinity", "seed 1e999", "surrogate", "nul", "digits", "brackets", "null",
         "nothing", "no UTF-8"],
)  # fmt: skip
def test_what_json_should_not_hold_is_a_clean_refusal(client: TestClient, body: str) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/generate", content=body.encode("latin-1"), headers=headers)
    assert answer.status_code in (400, 422)
    assert "detail" in answer.json()
    assert answer.json().get("param") in (None, "prompt", "guidance_scale", "seed")


def test_the_bounds_of_seeds_are_told_as_they_are(client: TestClient) -> None:
    """A number above 2^53 that went through a float would be another one."""
    answer = client.post("/generate", json={"prompt": "a", **SMALL, "seed": 2**64}).json()
    assert (answer["param"], str(2**64 - 1) in answer["detail"]) == ("seed", True)
    last = client.post("/generate", json={"prompt": "a", **SMALL, "seed": 2**64 - 1})
    assert last.json()["seed"] == 2**64 - 1


def test_a_refusal_does_not_repeat_what_was_sent(client: TestClient) -> None:
    answer = client.post("/generate", json={"prompt": "my secret", "width": "my secret"})
    assert answer.status_code == 422
    assert "secret" not in answer.text


def test_whole_floats_are_whole_numbers(client: TestClient) -> None:
    fields = {"prompt": "a", "num_inference_steps": 2.0, "width": 64.0, "height": 64.0, "seed": 3.0}
    assert client.post("/generate", json=fields).json()["seed"] == 3


def test_health_says_whether_it_draws(client: TestClient) -> None:
    assert client.get("/health").json() == {
        "status": "healthy", "model_loaded": True, "device": "cpu",
    }  # fmt: skip


def test_metrics_count_what_was_drawn_and_hold_no_words(client: TestClient) -> None:
    client.post("/generate", json={"prompt": "my secret", **SMALL})
    client.post("/generate", json={"prompt": "my secret", "seed": 1, **SMALL})
    text = client.get("/metrics").text
    for line in (
        'sdcore_requests_total{api="generate",status="done"} 2.0',
        "sdcore_images_total 2.0",
        "sdcore_steps_total 4.0",
        "sdcore_nfe_total 8.0",
        "sdcore_queue_depth 0.0",
        "sdcore_step_seconds_count 4.0",
    ):
        assert line in text.splitlines(), text
    assert 'sdcore_memory_bytes{kind="resident"}' in text
    assert "secret" not in text
    assert "/" not in text.replace("text/plain", "")


def test_what_a_filter_keeps_back_is_black_and_its_flag_is_told(
    worker: Worker, tiny_models: Models
) -> None:
    def nobody(images: list[Any], **info: Any) -> Any:
        return [None for _ in images], [True for _ in images]

    filtering = Worker(tiny_models, worker.limits, [nobody])
    with client_of(filtering) as client:
        body = client.post("/generate", json={"prompt": "a", "seed": 1, **SMALL}).json()
        streamed = client.post(
            "/v1/images/generations",
            json={"prompt": "a", "num_inference_steps": 4, "stream": True, "partial_images": 1},
        ).text
    picture = Image.open(io.BytesIO(base64.b64decode(body["image_base64"])))
    assert picture.convert("RGB").getcolors() == [(64 * 64, (0, 0, 0))]
    assert len(body["metadata"]["flags"]) == 1
    files = re.findall(r'"b64_json":"([^"]+)"', streamed)
    assert len(files) == 2  # a partial one, and the whole one
    for text in files:
        shown = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
        assert [colour for _, colour in shown.getcolors()] == [(0, 0, 0)]
