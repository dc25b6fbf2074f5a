"""Clients that people use, against a live server: their own libraries, and what they send.

The bodies of Open WebUI and SillyTavern are as these send them, field for field.
"""

import base64
import http.client
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdcore.server.models import Models
from sdcore.server.worker import Worker
from tests.server.conftest import live
from tests.server.pictures import opened

KEY = "a-key"


@pytest.fixture
def keyed(tiny_models: Models) -> Iterator[int]:
    """The port of a server that wants a key."""
    with live(Worker(tiny_models), key=KEY) as port:
        yield port


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    sent = {} if body is None else {"Content-Type": "application/json"}
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {**sent, **headers})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text)


# --- openai ---------------------------------------------------------------------------------------


@pytest.fixture
def openai(keyed: int) -> Any:
    library = pytest.importorskip("openai")
    return library.OpenAI(
        base_url=f"http://127.0.0.1:{keyed}/v1", api_key=KEY, max_retries=0, timeout=60
    )


def test_openai_lists_and_draws(openai: Any) -> None:
    assert [model.id for model in openai.models.list()] == ["tiny", "other"]
    more = {"num_inference_steps": 2, "guidance_scale": 3, "seed": 5, "negative_prompt": "rain"}
    answer = openai.images.generate(
        model="tiny", prompt="a boat", n=2, size="64x64", extra_body=more
    )
    assert [opened(each.b64_json).size for each in answer.data] == [(64, 64)] * 2
    assert answer.size == "64x64"


def test_the_example_of_the_page(keyed: int) -> None:
    """docs/server.md, with this server's address, key, model and size."""
    pytest.importorskip("openai")
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    for there, here in (("7860", str(keyed)), ("the key, or anything", KEY), ("128x128", "64x64"),
                        ("picturebook", "tiny"), ('steps": 20', 'steps": 2')):  # fmt: skip
        assert there in example
        example = example.replace(there, here)
    names: dict[str, Any] = {}
    exec(example, names)
    assert opened(names["answer"].data[0].b64_json).size == (64, 64)


def test_openai_streams(openai: Any) -> None:
    stream = openai.images.generate(
        model="tiny", prompt="a", size="64x64", stream=True, partial_images=2,
        extra_body={"num_inference_steps": 6},
    )  # fmt: skip
    events = list(stream)
    assert [event.type for event in events] == [
        "image_generation.partial_image", "image_generation.partial_image",
        "image_generation.completed",
    ]  # fmt: skip
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert all(opened(event.b64_json).size == (64, 64) for event in events)


def test_openai_edits(openai: Any) -> None:
    picture, mask = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    Image.new("RGBA", (64, 64)).save(mask, "PNG")
    files = [("a.png", each.getvalue(), "image/png") for each in (picture, mask)]
    answer = openai.images.edit(
        image=files[0], mask=files[1], prompt="a house", size="64x64",
        extra_body={"num_inference_steps": 2},
    )  # fmt: skip
    assert opened(answer.data[0].b64_json).size == (64, 64)


def test_openai_names_its_errors(openai: Any, keyed: int) -> None:
    library = pytest.importorskip("openai")
    with pytest.raises(library.NotFoundError, match="dall-e-2"):
        openai.images.generate(model="dall-e-2", prompt="a")
    with pytest.raises(library.BadRequestError, match="size"):
        openai.images.generate(prompt="a", size="huge")
    with pytest.raises(library.AuthenticationError):
        openai.with_options(api_key="wrong").models.list()


# --- webuiapi -------------------------------------------------------------------------------------


@pytest.fixture
def webui(keyed: int) -> Any:
    library = pytest.importorskip("webuiapi")
    api = library.WebUIApi(host="127.0.0.1", port=keyed, sampler="Euler a", steps=2)
    api.set_auth("anybody", KEY)
    return api


def test_webuiapi_draws(webui: Any) -> None:
    result = webui.txt2img(prompt="a boat", seed=5, width=64, height=64, cfg_scale=5)
    assert result.image.size == (64, 64)
    assert (result.info["seed"], result.info["sampler_name"]) == (5, "Euler a")
    assert result.parameters["prompt"] == "a boat"
    result = webui.img2img(
        images=[result.image], prompt="a", seed=5, width=64, height=64, denoising_strength=0.9
    )
    assert result.image.size == (64, 64)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 64, 64))
    result = webui.img2img(
        images=[result.image], mask_image=mask, prompt="a", width=64, height=64, steps=2
    )
    assert result.image.size == (64, 64)


def test_webuiapi_reads_every_list(webui: Any) -> None:
    assert webui.util_get_model_names() == ["other", "tiny"]
    assert "Euler a" in [each["name"] for each in webui.get_samplers()]
    assert webui.get_schedulers()
    for told in (
        webui.get_sd_vae, webui.get_upscalers, webui.get_latent_upscale_modes, webui.get_loras,
        webui.get_memory, webui.get_scripts, webui.get_cmd_flags, webui.get_embeddings,
    ):  # fmt: skip
        assert told() is not None
    assert webui.get_progress()["state"]["job_count"] == 0
    options = webui.get_options()
    webui.set_options(options)
    webui.util_set_model("other")
    assert webui.util_get_current_model() == "other"
    webui.util_wait_for_ready()
    webui.interrupt()
    webui.skip()


def test_webuiapi_reads_a_picture(webui: Any) -> None:
    result = webui.txt2img(prompt="a boat", seed=5, width=64, height=64)
    assert webui.png_info(result.image).info.startswith("a boat")


# --- Open WebUI -----------------------------------------------------------------------------------


def test_open_webui_by_automatic1111(keyed: int) -> None:
    auth = {"authorization": f"Basic {base64.b64encode(f'user:{KEY}'.encode()).decode()}"}
    status, options = ask(keyed, "GET", "/sdapi/v1/options", **auth)  # its health check as well
    assert status == 200
    status, models = ask(keyed, "GET", "/sdapi/v1/sd-models", **auth)
    assert [(each["title"], each["model_name"]) for each in models] == [
        ("tiny", "tiny"), ("other", "other"),
    ]  # fmt: skip
    options["sd_model_checkpoint"] = models[1]["title"]
    assert ask(keyed, "POST", "/sdapi/v1/options", options, **auth) == (200, None)
    body = {"prompt": "a boat", "batch_size": 1, "width": 64, "height": 64, "steps": 2,
            "negative_prompt": "rain", "cfg_scale": 4.0, "sampler_name": "Euler",
            "scheduler": "Karras"}  # fmt: skip
    status, drawn = ask(keyed, "POST", "/sdapi/v1/txt2img", body, **auth)
    assert status == 200
    assert opened(drawn["images"][0]).size == (64, 64)
    assert json.loads(drawn["info"])["sd_model_name"] == "other"


def test_open_webui_by_openai(keyed: int) -> None:
    auth = {"authorization": f"Bearer {KEY}"}
    body = {"model": "tiny", "prompt": "a boat", "n": 1, "size": "64x64",
            "response_format": "b64_json"}  # fmt: skip
    status, drawn = ask(keyed, "POST", "/v1/images/generations", body, **auth)
    assert status == 200
    assert opened(drawn["data"][0]["b64_json"]).size == (64, 64)


# --- SillyTavern ----------------------------------------------------------------------------------


def test_sillytavern(keyed: int) -> None:
    auth = {"authorization": f"Basic {base64.b64encode(f'user:{KEY}'.encode()).decode()}"}
    for name in ("options", "upscalers", "latent-upscale-modes", "sd-vae", "samplers",
                 "schedulers", "sd-models"):  # fmt: skip
        assert ask(keyed, "GET", f"/sdapi/v1/{name}", **auth)[0] == 200
    status, _ = ask(keyed, "POST", "/sdapi/v1/options", {"sd_model_checkpoint": "other"}, **auth)
    assert status == 200
    told = ask(keyed, "GET", "/sdapi/v1/progress", **auth)[1]
    assert (told["progress"], told["state"]["job_count"]) == (0, 0)
    body = {
        "prompt": "a boat", "negative_prompt": "rain", "sampler_name": "Euler a",
        "scheduler": "karras", "steps": 2, "cfg_scale": 7, "width": 64, "height": 64,
        "restore_faces": False, "enable_hr": False, "hr_upscaler": "Latent", "hr_scale": 1.5,
        "hr_additional_modules": [], "denoising_strength": 0.7, "hr_second_pass_steps": 0,
        "seed": None, "override_settings": {"CLIP_stop_at_last_layers": 1},
        "override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": True,
        "send_images": True, "do_not_save_grid": False, "do_not_save_samples": False,
    }  # fmt: skip
    status, drawn = ask(keyed, "POST", "/sdapi/v1/txt2img", body, **auth)
    assert status == 200, drawn
    assert opened(drawn["images"][0]).size == (64, 64)
    assert ask(keyed, "POST", "/sdapi/v1/interrupt", {}, **auth) == (200, {})
    status, refused = ask(
        keyed, "POST", "/sdapi/v1/txt2img", {**body, "restore_faces": True}, **auth
    )
    assert status == 422
    assert "restore_faces" in refused["detail"]


# --- curl, from the documentation -----------------------------------------------------------------


def test_plain_requests(keyed: int) -> None:
    body = {"prompt": "a red house", "num_inference_steps": 2, "width": 64, "height": 64, "seed": 3}
    for auth in ({"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}):
        status, drawn = ask(keyed, "POST", "/generate", body, **auth)
        assert (status, drawn["seed"]) == (200, 3)
    assert ask(keyed, "POST", "/generate", body)[0] == 401
    assert ask(keyed, "GET", "/health")[1]["status"] == "healthy"
