"""Whatever is sent is answered by 2xx or 4xx: never by an error of the server.

A few hundred requests; `make fuzz ARGS="--times 50"` sends thousands and prints what it counted.
Everything is as it is but for the networks, which draw black pictures at once.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from sdcore.drawing import Drawn
from sdcore.server import drawings
from sdcore.server.a1111.fields import ImageToImage, TextToImage
from sdcore.server.asked import FIELDS
from sdcore.server.limits import Limits
from sdcore.server.models import Models
from sdcore.server.openai_images import Edit, Generation
from sdcore.server.worker import Worker
from tests.server.conftest import client_of
from tests.server.pictures import coded

SHORT = 40  # examples of each kind, once


PICTURE = coded(Image.new("RGB", (64, 64), "red"))
SMALL = {"width": 64, "height": 64}
BODIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {  # valid ones, and fields to garble
    "/generate": (
        {"prompt": "a", "num_inference_steps": 2, **SMALL},
        ("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "seed", "width",
         "height", "x"),
    ),
    "/v1/images/generations": (
        {"prompt": "a", "size": "64x64", "steps": 2},
        (*Generation.model_fields, *FIELDS),
    ),
    "/v1/images/edits": (
        {"prompt": "a", "steps": 2,
         "images": [{"image_url": f"data:image/png;base64,{PICTURE}"}]},
        (*Edit.model_fields, *FIELDS),
    ),
    "/plan": ({"steps": 2}, (*FIELDS, "nfe", "x")),
    "/settings": ({"picture": PICTURE}, ("picture", "x")),
    "/sdapi/v1/txt2img": ({"prompt": "a", "steps": 2, **SMALL}, (*TextToImage.model_fields,)),
    "/sdapi/v1/img2img": (
        {"prompt": "a", "steps": 2, **SMALL, "init_images": [PICTURE], "mask": PICTURE},
        (*ImageToImage.model_fields,),
    ),
    "/sdapi/v1/options": ({"sd_model_checkpoint": "tiny"}, ("CLIP_stop_at_last_layers", "sd_vae")),
    "/sdapi/v1/png-info": ({"image": PICTURE}, ("image",)),
    "/runs": ({"prompt": "a", "steps": 2, **SMALL}, ("prompt", "seed", "model", "count", *FIELDS)),
}  # fmt: skip
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 1.5, 2.0, 1e-300, 1e300, 10**30, 10**400, -(2**63), 2**64,
    float("nan"), float("inf"), "", " ", "a", "\0", "\ud800", "a" * 600, "1", "64x64", "auto",
    "mine.py", "../x",
    "http://127.0.0.1/x", "C:\\x", "\\\\host\\x", "(((", "[a:b:0.5]", "a AND b", "<lora:x:1>",
    "<lora:picturebook-v:1>", "{a|b}", "__x__", [], [None], [1, 2], {}, {"a": 1}, PICTURE,
    f"data:image/png;base64,{PICTURE}", "euler", "Euler a", "dpmpp_2m:x=1", "karras", "Karras",
    "sigmas:14,1,0", "sigmas:nan,0", "timesteps:999,1", "cfg+interval:low=0.3,high=5", "tiny",
    "other", "left=8", "xy", "5:0.2", "deepcache", "brownian", "zero", "1.5,1.6,0.9,0.2", "a1111",
    0.5, 3, 8, 64, 4096,
)  # fmt: skip

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.sampled_from(NASTY) | st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """A route, and a body that is valid but for some fields, or none at all."""
    path = draw(st.sampled_from(sorted(BODIES)))
    body, fields = BODIES[path]
    if draw(st.integers(0, 9)) == 0:
        sent = draw(values)
    else:
        garbled = draw(st.dictionaries(st.sampled_from(fields), values, max_size=4))
        sent = {**body, **garbled}
    text = json.dumps(sent)
    if draw(st.integers(0, 19)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return path, text.encode()


@pytest.fixture(scope="module")
def stubbed(tiny_models: Models) -> Iterator[TestClient]:
    def black(networks: Any, wanted: Any, parts: Any, **more: Any) -> Iterator[Drawn]:
        for each in wanted:
            size = (each.width, each.height)
            yield Drawn(Image.new("RGB", size), each, 1, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawings, "draw", black)
        worker = Worker(tiny_models, Limits(side=512, jobs=8))
        with client_of(worker) as client:
            yield client


@pytest.fixture
def times(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--times")


def bounded(times: int, examples: int = SHORT) -> settings:
    return settings(
        max_examples=examples * times, deadline=None, database=None, derandomize=times == 1,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def test_bodies(stubbed: TestClient, times: int, capsys: pytest.CaptureFixture[str]) -> None:
    counted: Counter[tuple[str, int]] = Counter()

    @bounded(times, 4 * SHORT)
    @given(requests())
    def answered(request: tuple[str, bytes]) -> None:
        path, body = request
        answer = stubbed.post(path, content=body, headers={"content-type": "application/json"})
        counted[path, answer.status_code] += 1
        assert 200 <= answer.status_code < 500, (path, body, answer.text)

    for path, (body, _) in BODIES.items():
        answered = example((path, json.dumps(body).encode()))(answered)
    answered()
    assert {path for path, _ in counted} == BODIES.keys()
    assert {path for path, status in counted if status == 200} >= BODIES.keys() - {
        "/runs",
        "/settings",
    }
    with capsys.disabled():
        if times > 1:
            print(f"\n{sum(counted.values())} bodies:", dict(sorted(counted.items())))


def test_raw_requests(stubbed: TestClient, times: int) -> None:
    paths = st.sampled_from([*BODIES, "/health", "/metrics", "/runs/x", "/v1/models/x", "/", "/x"])
    names = st.sampled_from(["host", "origin", "authorization", "content-type", "last-event-id",
                             "sec-fetch-site", "x-api-key", "content-length"])  # fmt: skip
    texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)

    @bounded(times)
    @given(
        st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"]), paths,
        st.dictionaries(names, texts, max_size=2), st.binary(max_size=200),
    )  # fmt: skip
    def answered(method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        answer = stubbed.request(method, path, headers=headers, content=body)
        assert 200 <= answer.status_code < 500, answer.text

    answered()


def test_what_the_schema_allows_and_what_it_forbids(stubbed: TestClient, times: int) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    requests_library = pytest.importorskip("requests")
    told = stubbed.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(told)
    counted: Counter[int] = Counter()
    for operation in schema.get_all_operations():
        case = operation.ok()

        @bounded(times, 4)
        @given(case.as_strategy())
        def answered(case: Any) -> None:
            sent = case.as_transport_kwargs(base_url="http://127.0.0.1")
            known = ("method", "url", "headers", "params", "json", "data", "files", "cookies")
            request = requests_library.Request(**{k: v for k, v in sent.items() if k in known})
            ready = request.prepare()
            answer = stubbed.request(
                case.method, str(ready.url), headers=dict(ready.headers), content=ready.body
            )
            counted[answer.status_code] += 1
            assert 200 <= answer.status_code < 500, (case.method, case.path, answer.text)

        answered()
    assert counted
    if times > 1:
        print(f"{sum(counted.values())} by the schema:", dict(sorted(counted.items())))
