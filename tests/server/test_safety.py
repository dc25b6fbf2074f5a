"""What happened to other servers, each as a test; and who may ask what."""

import asyncio
import base64
import io
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdcore.cli.serve import serve
from sdcore.complete import complete
from sdcore.drawing import draw
from sdcore.errors import InputError
from sdcore.prepare import prepare
from sdcore.request import parts_of
from sdcore.server import application
from sdcore.server.asked import Asked, read
from sdcore.server.limits import Limits
from sdcore.server.models import Models, listed_models
from sdcore.server.options import ServerOptions, check_options, of_environment, read_key
from sdcore.server.refusals import Missing, Refused
from sdcore.server.worker import Worker
from tests.server.conftest import client_of

SMALL: dict[str, Any] = {"num_inference_steps": 1, "width": 64, "height": 64}
SECRET = "a-long-key"
DRAWN = "/v1/images/generations"


@pytest.fixture
def keyed(worker: Worker) -> Iterator[TestClient]:
    """A client of a server that wants a key."""
    with client_of(worker, key=SECRET) as client:
        yield client


def parted(asked: Asked, networks: Any) -> tuple[Any, Any]:
    """As the command line comes from a request to its settings."""
    parts = parts_of(asked.request, networks)
    return complete(asked.request, networks, parts), parts


def refused(given: dict[str, Any], models: Models, limits: Limits | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        read({"prompt": "a", **given}, models, Limits() if limits is None else limits)
    return caught.value


# --- files and code: A1111 #2571, InvokeAI CVE-2024-12029 and CVE-2025-6237, ComfyUI's nodes ------


@pytest.mark.parametrize("name", ["scheduler", "spacing", "noise", "guidance", "hires_scheduler"])
@pytest.mark.parametrize(
    "value",
    ["mine.py", "mine.py:rule", "mine.PY:Rule,scale=3", "./x/mine.py", "//host/share/mine.py",
     "\\\\host\\share\\x", "euler:x=mine.py", "cfg+mine.py:rule", "/etc/x.tableau:rtol=0.1"],
)  # fmt: skip
def test_no_field_names_a_file_of_code(tiny_models: Models, name: str, value: str) -> None:
    error = refused({name: value}, tiny_models)
    assert error.param == name
    assert error.status == 422


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"latents": "/etc/passwd"}, 422),
        ({"out": "x.png"}, 422),
        ({"outdir_samples": "scripts"}, 422),
        ({"state": "x"}, 422),
        ({"vae": "/etc/passwd"}, 422),
        ({"unet": "x"}, 422),
        ({"device": "cuda"}, 422),
        ({"wildcards": "all"}, 422),
        ({"filter": "mine.py"}, 422),
        ({"loras": ["/etc/passwd"]}, 404),
        ({"loras": ["../style:0.8"]}, 404),
        ({"embeddings": ["/etc/passwd"]}, 404),
        ({"model": "/etc/passwd"}, 404),
        ({"model": "../../models/secret"}, 404),
        ({"model": "runwayml/stable-diffusion-v1-5"}, 404),
        ({"model": "https://a.example/model.ckpt"}, 404),
        ({"refiner": "/etc/passwd"}, 404),
        ({"grammar": "a1111", "prompt": "a <lora:/etc/passwd:1>"}, 404),
        ({"grammar": "a1111", "prompt": "a <lyco:..\\secret:1>"}, 404),
    ],
)
def test_models_and_adapters_are_names_of_a_list_and_nothing_is_a_path(
    tiny_models: Models, given: dict[str, Any], status: int
) -> None:
    assert refused(given, tiny_models).status == status


def test_what_is_there_and_what_is_not_are_told_alike(tiny_models: Models, tmp_path: Path) -> None:
    (tmp_path / "there.safetensors").write_bytes(b"")
    there, absent = (str(tmp_path / name) for name in ("there.safetensors", "absent.safetensors"))
    errors = [refused({"model": place}, tiny_models) for place in (there, absent)]
    told = [str(error).replace(there, "X").replace(absent, "X") for error in errors]
    assert told[0] == told[1]


def test_words_that_a_command_reads_from_files_are_words_here(client: TestClient) -> None:
    for prompt in ("__colours__", "@/etc/passwd", "{red|blue} house"):
        answer = client.post("/generate", json={"prompt": prompt, "seed": 1, **SMALL}).json()
        picture = Image.open(io.BytesIO(base64.b64decode(answer["image_base64"])))
        assert json.loads(picture.text["sdcore"])["prompt"] == prompt  # type: ignore


def test_no_route_installs_fetches_or_lists_folders(client: TestClient) -> None:
    routes = {route.path for route in client.app.routes if hasattr(route, "path")}  # type: ignore
    words = ("install", "download", "upload", "scan", "folder", "file", "delete", "restart", "kill")
    assert not [path for path in routes for word in words if word in path]
    for path in ("/docs", "/redoc", "/sdapi/v1/server-kill", "/..%2f..%2fetc/passwd", "/static/x"):
        assert client.get(path).status_code == 404


def test_endings_of_code_are_compared_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "Model.Safetensors").write_bytes(b"\x80\x04pickle")
    told: list[str] = []
    with pytest.raises(InputError, match="holds no model"):
        listed_models([str(tmp_path)], told.append)
    assert len(told) == 1
    assert "Model.Safetensors" in told[0]


# --- addresses: A1111's init images -----------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/x.png", "https://a.example/x.png", "HTTP://a.example/x.png",
     "file:///etc/passwd", " http://a.example/x.png", "data:text/html;base64,PGI+"],
)  # fmt: skip
def test_no_address_is_followed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    import socket

    def never(*args: Any, **more: Any) -> Any:
        raise AssertionError("an address was asked for")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(socket.socket, "connect", never)
    fields = {"prompt": "a", "init_images": [url], "width": 64, "height": 64, "steps": 1}
    assert client.post("/sdapi/v1/img2img", json=fields).status_code == 422
    edit = {"prompt": "a", "images": [{"image_url": url}]}
    assert client.post("/v1/images/edits", json=edit).status_code == 400
    assert client.post("/sdapi/v1/png-info", json={"image": url}).status_code == 422


# --- bombs ----------------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A PNG of so many pixels that is a few bytes long."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_a_small_file_of_many_pixels_is_not_decoded(tiny_models: Models) -> None:
    for size in ((60_000, 60_000), (5000, 5000)):
        error = refused({"image": base64.b64encode(bomb(*size)).decode()}, tiny_models)
        assert "pixels" in str(error) or "no picture" in str(error)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "TIFF")
    error = refused({"image": base64.b64encode(buffer.getvalue()).decode()}, tiny_models)
    assert "PNG, JPEG, WEBP" in str(error)


@pytest.mark.parametrize(
    "given",
    [
        {"width": 4096}, {"height": 10**9}, {"steps": 10_000}, {"count": 10_000},
        {"seeds": list(range(100))}, {"prompts": ["a"] * 100}, {"prompt": "a" * 20_000},
        {"scheduler": "a" * 1000}, {"loras": ["x"] * 100},
        {"image": Image.new("RGB", (64, 64)), "extend": "left=6000,top=6000"},
        *({name: 10**400} for name in ("steps", "width", "seed", "count")),
        *({name: 1e999} for name in ("steps", "width", "seed", "count")),
    ],
)  # fmt: skip
def test_sizes_steps_counts_and_texts_are_bounded(
    tiny_models: Models, given: dict[str, Any]
) -> None:
    if "prompts" in given:
        with pytest.raises(Refused):
            read(given, tiny_models, Limits())
    else:
        refused(given, tiny_models)


@pytest.mark.parametrize(
    "given",
    [
        {"spacing": f"timesteps:{','.join(map(str, range(400, 0, -2)))}"},  # as many steps
        {"image": Image.new("RGB", (64, 64)), "extend": "left=99999"},
        {"image": Image.new("RGB", (4000, 64))},
        {"grammar": "a1111", "prompt": " AND ".join(["a"] * 2000), "width": 512, "height": 512},
    ],
    ids=["a list of steps", "pixels beside it", "the size of a picture", "many parts"],
)
def test_what_makes_a_picture_large_by_another_way_is_bounded_too(
    worker: Worker, given: dict[str, Any]
) -> None:
    from sdcore.server import drawings

    with pytest.raises(InputError):
        drawings.submit(worker, read({"prompt": "a", **given}, worker.models, worker.limits))


def test_a_large_picture_is_let_go_of_and_the_same_is_drawn(tiny_models: Models) -> None:
    from sdcore.server import drawings

    worker = Worker(tiny_models, Limits())  # not begun: jobs wait
    image = Image.effect_mandelbrot((400, 300), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    mask = Image.new("L", image.size)
    mask.paste(255, (0, 0, 200, 300))
    given = {"prompt": "a", "seed": 1, "image": image, "mask": mask, "mask_blur": 3, "paste": True,
             "steps": 2, "width": 64, "height": 32}  # fmt: skip
    asked = read(given, worker.models, worker.limits)
    job = drawings.submit(worker, asked)
    assert job.task.asked.request.image.size == (64, 32)
    assert sum(job.given.values()) == 64 * 32 * 5
    worker.start()
    assert job.wait(60)
    drawn, networks = job.result[0], tiny_models.networks(tiny_models.choice())
    run = prepare(networks, *parted(asked, networks))
    assert drawn.settings == run.settings[0]
    again = next(draw(networks, run.settings, parted(asked, networks)[1])).picture
    assert np.abs(np.asarray(drawn.picture, int) - np.asarray(again, int)).max() == 0
    assert worker.stop()


def test_a_model_and_its_refiner_are_loaded_once_by_the_worker_alone(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdcore import loading
    from sdcore.server import drawings

    load, loaded = loading.load, []

    def counted(place: str, **source: Any) -> Any:
        loaded.append(threading.current_thread().name)
        return load(place, **source)

    monkeypatch.setattr(loading, "load", counted)
    places = dict.fromkeys(("base", "refiner", "third"), str(tiny_path))
    worker = Worker(Models(places, source={"device": "cpu"}, most=1))
    worker.start()
    fields = {"prompt": "a", "refiner": "refiner", "handover": 1.0, "width": 32, "height": 32,
              "steps": 2}  # fmt: skip
    for _ in range(2):
        job = drawings.submit(worker, read(fields, worker.models, worker.limits))
        assert job.wait(60)
        assert job.error is None
    assert loaded == ["sdcore-worker"] * 2
    assert worker.models.loaded == ("base", "refiner")
    third = read({**fields, "model": "third", "refiner": None, "handover": None},
                 worker.models, worker.limits)  # fmt: skip
    assert drawings.submit(worker, third).wait(60)
    assert worker.models.loaded == ("third",)
    assert worker.stop()


def test_a_solver_that_asks_without_end_is_stopped(tiny_models: Models) -> None:
    from sdcore.server import drawings

    worker = Worker(tiny_models, Limits(work=0.2))
    worker.start()
    fields = {"prompt": "a", "scheduler": "dpm_adaptive:rtol=1e-6,atol=1e-6", "steps": 5,
              "width": 32, "height": 32}  # fmt: skip
    job = drawings.submit(worker, read(fields, worker.models, worker.limits))
    assert job.wait(240)
    assert "more often than the server allows" in str(job.error)
    assert worker.stop()


def test_a_body_that_is_too_long_is_not_read(worker: Worker) -> None:
    small = Worker(worker.models, Limits(body=1000))
    with client_of(small) as client:
        answer = client.post("/generate", json={"prompt": "a" * 2000, **SMALL})
        assert answer.status_code == 413

        def parts() -> Iterator[bytes]:  # whose length nobody says
            yield from (b" " * 100 for _ in range(100))

        headers = {"content-type": "application/json"}
        assert client.post("/generate", content=parts(), headers=headers).status_code == 413


# --- other sites' pages: CVE-2024-4940, ComfyUI #12860, #16203, the manager's forms ---------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("127.0.0.1:7860", 200), ("localhost", 200), ("LOCALHOST:80", 200),
        ("[::1]", 200), ("[::1]:8765", 200), ("127.0.0.2:80", 200),
        ("evil.example", 400), ("localhost.evil.example", 400), ("evil.example:7860", 400),
        ("192.168.0.4", 400), ("", 400), ("127.0.0.1.evil.example", 400), ("[::1].evil", 400),
        ("localhost:evil", 400), ("user@localhost", 400),
    ],
)  # fmt: skip
def test_a_name_that_was_made_to_point_here_is_refused(
    client: TestClient, host: str, status: int
) -> None:
    for path in ("/health", "/metrics"):
        assert client.get(path, headers={"host": host}).status_code == status


def test_further_names_are_those_that_were_allowed(worker: Worker) -> None:
    with client_of(worker, host_allowed=("draw.example",)) as client:
        assert client.get("/health", headers={"host": "draw.example:443"}).status_code == 200
        assert client.get("/health", headers={"host": "x.draw.example"}).status_code == 400
    with client_of(Worker(worker.models), host="0.0.0.0", key=SECRET) as client:
        for host, status in (("192.168.0.4:7860", 200), ("[fd00::1]", 200), ("evil.example", 400)):
            assert client.get("/health", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1.evil.example"}, 403),
        ({"origin": "http://127.0.0.1:81"}, 403),
        ({"origin": "http://[::1"}, 403),
    ],
)
def test_a_page_of_another_site_changes_nothing(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    body = {"prompt": "a", **SMALL}
    assert client.post("/generate", json=body, headers=headers).status_code == status
    assert client.post("/sdapi/v1/interrupt", headers=headers).status_code == status
    assert client.get("/health", headers=headers).status_code == 200  # a link is followed
    for path in ("/models/tiny", "/sdapi/v1/progress"):  # a picture's address in a page
        assert client.get(path, headers=headers).status_code == status


@pytest.mark.parametrize(
    "kind",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)
def test_what_a_form_of_another_page_can_send_is_not_read(
    client: TestClient, kind: str | None
) -> None:
    body = json.dumps({"prompt": "a", **SMALL}).encode()
    headers = {} if kind is None else {"content-type": kind}
    for path in ("/generate", DRAWN, "/sdapi/v1/txt2img", "/sdapi/v1/options"):
        assert client.post(path, content=body, headers=headers).status_code == 415


def test_no_other_origin_is_named_unless_it_was(client: TestClient, worker: Worker) -> None:
    origin = "http://localhost:3000"
    asked = {"origin": origin, "access-control-request-method": "POST"}
    answer = client.options("/generate", headers=asked)
    assert "access-control-allow-origin" not in answer.headers
    with client_of(worker, cors=(origin,), key=SECRET) as other:
        answer = other.options("/generate", headers=asked)
        assert answer.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in answer.headers
        answer = other.options("/generate", headers={**asked, "origin": "http://evil.example"})
        assert "access-control-allow-origin" not in answer.headers
        body = {"prompt": "a", **SMALL}
        headers = {"origin": origin, "sec-fetch-site": "same-site"}
        assert other.post("/generate", json=body, headers=headers).status_code == 401
        headers["x-api-key"] = SECRET
        assert other.post("/generate", json=body, headers=headers).status_code == 200
    for star in ("*", "null", "localhost:3000", "http://a.example/"):
        with pytest.raises(InputError, match="origin"):
            check_options(ServerOptions(cors=(star,)))


def test_answers_say_that_nobody_frames_or_guesses_them(client: TestClient) -> None:
    for path in ("/health", "/nowhere"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_an_answer_leads_nowhere_else(client: TestClient) -> None:
    paths = ("/generate/", "//evil.example/generate/", "/%2f%2fevil.example/", "/\\evil.example/",
             "/v1/models//evil.example/", "/page//evil.example/")  # fmt: skip
    for path in paths:
        answer = client.get(f"http://127.0.0.1{path}", follow_redirects=False)
        assert answer.status_code in (307, 404, 405), path
        if answer.status_code == 307:
            assert answer.headers["location"].startswith("http://127.0.0.1/"), path


# --- the key --------------------------------------------------------------------------------------


def basic(user: str, word: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(f'{user}:{word}'.encode()).decode()}"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {SECRET}"}, 200),
        ({"authorization": f"bearer {SECRET}"}, 200),
        ({"x-api-key": SECRET}, 200),
        (basic("anybody", SECRET), 200),
        (basic("", SECRET), 200),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Bearer {SECRET}x"}, 401),
        ({"authorization": SECRET}, 401),
        ({"authorization": "Basic !"}, 401),
        (basic(SECRET, ""), 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": SECRET[:-1]}, 401),
    ],
)
def test_the_key_in_its_three_forms(
    keyed: TestClient, headers: dict[str, str], status: int
) -> None:
    assert keyed.get("/v1/models", headers=headers).status_code == status
    assert keyed.post("/sdapi/v1/skip", headers=headers).status_code == status
    if status == 401:
        answer = keyed.get("/v1/models", headers=headers)
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert answer.json()["error"]["type"] == "authentication_error"
        assert SECRET not in answer.text


def test_only_health_and_metrics_are_told_without_it(keyed: TestClient) -> None:
    paths = {route.path for route in keyed.app.routes if hasattr(route, "path")}  # type: ignore
    plain = {path.replace("{name:path}", "x").replace("{id}", "x") for path in paths}
    told = {path for path in plain if keyed.get(path).status_code not in (401, 405)}
    assert told <= {"/health", "/metrics"}
    assert keyed.get("/health").status_code == 200


def test_others_are_listened_to_with_a_key_or_in_so_many_words() -> None:
    for host in ("0.0.0.0", "::", "192.168.0.4", "draw.example"):
        with pytest.raises(InputError, match="SDCORE_API_KEY"):
            check_options(ServerOptions(host=host))
        assert check_options(ServerOptions(host=host, key=SECRET))
        assert check_options(ServerOptions(host=host), no_auth=True)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert check_options(ServerOptions(host=host))


def test_the_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    assert read_key(None, {}) is None
    assert read_key(None, {"SDCORE_API_KEY": SECRET}) == SECRET
    assert read_key(str(tmp_path / "key"), {"SDCORE_API_KEY": "other"}) == SECRET
    for bad in ("", " ", "two\nlines", "ü"):
        with pytest.raises(InputError):
            read_key(None, {"SDCORE_API_KEY": bad})


def test_uvicorn_is_told_by_the_environment() -> None:
    told = of_environment(
        {"SDCORE_API_KEY": SECRET, "SDCORE_SERVE_MODELS": "picturebook", "SDCORE_SERVE_HOST": "::",
         "SDCORE_SERVE_MAX_STEPS": "20", "SDCORE_SERVE_DEVICE": "cpu", "HOME": "/",
         "SDCORE_SERVE_BATCH": "3"}
    )  # fmt: skip
    assert (told.key, told.models, told.host) == (SECRET, ("picturebook",), "::")
    assert (told.limits.steps, told.limits.batch, told.source) == (20, 3, {"device": "cpu"})
    told = of_environment({"SDCORE_SERVE_MAX_PROMPT": "9", "SDCORE_SERVE_MAX_TEXT": "99"})
    assert (told.max_prompt, told.limits.text) == (9, 99)
    assert of_environment({"SDCORE_SERVE_DEVICE": "auto"}).source == {}
    for name, text in (
        ("WAT", "1"),
        ("MAX_STEPS", "many"),
        ("MAX_STEPS", "0"),
        ("MAX_WORK", "nan"),
        ("MAX_PROMPT", "-1"),
        ("GRACE", "nan"),
        ("GRACE", "-1"),
        ("HOST", "0.0.0.0"),
        ("DEVICE", "cud"),
        ("DTYPE", "float8"),
        ("MEMORY", "x"),
        ("ENGINE", "x"),
    ):
        with pytest.raises(InputError):
            of_environment({f"SDCORE_SERVE_{name}": text})


def test_every_bound_is_an_option_and_a_variable() -> None:
    bounds = {each.name for each in fields(Limits)} - {"batch"}
    options = {str(each.name) for each in serve.params}
    assert {each.removeprefix("max_") for each in options if each.startswith("max_")} == {
        *bounds, "prompt",
    }  # fmt: skip
    for name in bounds:
        told = of_environment({f"SDCORE_SERVE_MAX_{name.upper()}": "7"})
        assert vars(told.limits) == {**vars(Limits()), name: 7}


def test_under_uvicorn_what_was_begun_may_end_within_the_grace(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(networks: Any, jobs: Any) -> None:
        ending.wait(60)
        jobs[0].check()
        jobs[0].result = "done"

    ending = threading.Event()
    monkeypatch.setattr(application, "made_worker", lambda options: worker)
    monkeypatch.setenv("SDCORE_SERVE_GRACE", "60")
    with TestClient(application.from_environment()):
        job = worker.submit(work)
        threading.Timer(0.2, ending.set).start()
    assert job.state == "done"


@pytest.mark.parametrize(
    ("more", "hides"),
    [({}, False), ({"host": "0.0.0.0"}, True), ({"host_allowed": ("draw.example",)}, True),
     ({"key": SECRET}, True), ({"cors": ("https://a.example",)}, True)],
    ids=str,
)  # fmt: skip
def test_folders_are_hidden_wherever_others_may_ask(more: dict[str, Any], hides: bool) -> None:
    assert ServerOptions(**more).hides_places is hides


def test_filters_are_named_without_their_folders_to_others(tiny_models: Models) -> None:
    settings = parted(read({"prompt": "a"}, tiny_models, Limits()),
                      tiny_models.networks(tiny_models.choice()))[0][0]  # fmt: skip
    settings = replace(
        settings,
        filters=("safety:folder=/home/me/sd15,action=black", "/srv/my filters/mine.py:check,n=2"),
        digests=(*settings.digests, "12ab /srv/my filters/mine.py", "34cd there/other.py"),
    )
    hiding = Models({"tiny": tiny_models.places["tiny"]}, hidden=True)
    shown = hiding.shown(settings)
    assert shown.filters == ("safety:folder=sd15,action=black", "mine.py:check,n=2")
    assert shown.digests[-2:] == ("12ab mine.py", "34cd other.py")
    assert [line.partition(" ")[2] for line in shown.digests[:-2]] == ["tiny"]
    assert tiny_models.shown(settings) == settings


def test_prompts_are_in_no_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    client.post("/generate", json={"prompt": "my secret", **SMALL})
    client.post("/generate", json={"prompt": "my secret", "width": "my secret"})
    client.post(DRAWN, json={"prompt": "my secret", "scheduler": "wat"})
    client.post("/sdapi/v1/txt2img", json={"prompt": "my secret (", "steps": 1, "width": 64})
    ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore", "asyncio"))]
    assert not [record for record in ours if "secret" in record.getMessage()]


def test_an_error_of_our_own_is_one_line_of_the_log_without_its_words(
    client: TestClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing reaches the web server, which would write the whole of it."""

    def fail(*_: Any) -> None:
        raise RuntimeError("my secret")

    monkeypatch.setattr("sdcore.server.results.read", fail)
    monkeypatch.setattr(client._transport, "raise_server_exceptions", True)
    answer = client.post("/generate", json={"prompt": "my secret", **SMALL})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    (line,) = [r.getMessage() for r in caplog.records if r.name == "sdcore.server"]
    assert "RuntimeError at" in line
    assert "secret" not in caplog.text


@pytest.mark.parametrize("path", ["/v1/images/edits", "/generate"])
def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(
    worker: Worker, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    headers = {b"host": b"127.0.0.1", b"content-type": b"application/json", b"content-length": b"9"}
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers":
             list(headers.items()), "server": ("127.0.0.1", 80), "scheme": "http"}  # fmt: skip
    coming = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> Any:
        return next(coming, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        assert message.get("status") != 500

    asyncio.run(application.create_app(worker, ServerOptions())(scope, receive, send))
    assert [record for record in caplog.records if record.name == "sdcore.server"] == []


def test_lists_know_no_name_twice(tiny_path: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same").symlink_to(tiny_path)
    places = listed_models([str(tmp_path / "a"), str(tmp_path / "b"), str(tiny_path)])
    assert list(places) == ["same", "same-2", "tiny"]
    models = Models(places)
    assert models.model_named(None) == "same"
    assert models.model_named("TINY") == "tiny"
    with pytest.raises(Missing):
        models.model_named("other")


def test_uvicorn_finds_the_application_whatever_was_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fastapi import FastAPI
    from uvicorn.importer import import_from_string

    monkeypatch.setenv("SDCORE_SERVE_MODELS", "picturebook")
    for _ in range(2):
        assert isinstance(import_from_string("sdcore.server:app"), FastAPI)
