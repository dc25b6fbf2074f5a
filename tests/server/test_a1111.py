"""A1111's API, by raw requests; webuiapi is in test_clients.py."""

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdcore.images import KEY
from sdcore.server.a1111.lists import LISTS
from sdcore.server.a1111.routes import Desk
from sdcore.server.jobs import Job
from sdcore.server.models import Choice
from sdcore.server.worker import Worker
from sdcore.settings import Settings
from tests.server.conftest import Pace
from tests.server.pictures import coded, opened, settings_in

SMALL: dict[str, Any] = {"steps": 2, "width": 64, "height": 64, "seed": 3, "sampler_name": "Euler"}
TXT, IMG = "/sdapi/v1/txt2img", "/sdapi/v1/img2img"


def half(side: int = 64) -> Image.Image:
    """A mask that is white at the right."""
    mask = Image.new("L", (side, side), 0)
    mask.paste(255, (side // 2, 0, side, side))
    return mask


RED = coded(Image.new("RGB", (64, 64), "red"))


def test_pictures_and_an_info_that_is_a_text(client: TestClient) -> None:
    fields = {"prompt": "a boat", "negative_prompt": "rain", "n_iter": 2, **SMALL}
    answer = client.post(TXT, json=fields)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.keys() == {"images", "parameters", "info"}
    assert [opened(each).size for each in body["images"]] == [(64, 64)] * 2
    assert body["parameters"]["prompt"] == "a boat"
    info = json.loads(body["info"])
    assert info["all_seeds"] == [3, 4]
    assert info["all_prompts"] == ["a boat"] * 2
    assert (info["seed"], info["width"], info["steps"]) == (3, 64, 2)
    assert (info["cfg_scale"], info["sampler_name"]) == (7.0, "Euler")
    assert [opened(each).text["parameters"] for each in body["images"]] == info["infotexts"]  # type: ignore


def test_the_names_of_samplers_and_schedulers_are_a1111s(client: TestClient) -> None:
    fields = {"prompt": "a", **SMALL, "sampler_name": "DPM++ 2M SDE", "scheduler": "karras"}
    settings = settings_in(client.post(TXT, json=fields).json()["images"][0])
    assert (settings.scheduler, settings.spacing) == ("dpmpp_2m_sde", "a1111:karras")
    fields |= {"sampler_name": None, "sampler_index": "Euler a", "scheduler": "SGM Uniform"}
    settings = settings_in(client.post(TXT, json=fields).json()["images"][0])
    assert (settings.scheduler, settings.spacing) == ("euler_a", "a1111:sgm_uniform")
    assert settings.grammar == "a1111"


def test_eta_is_for_samplers_that_have_one(client: TestClient) -> None:
    # webuiapi always sends 1.
    for sampler, eta in (("Euler a", 0.5), ("DPM++ 2M", None)):
        fields = {"prompt": "a", **SMALL, "sampler_name": sampler, "eta": 0.5}
        assert settings_in(client.post(TXT, json=fields).json()["images"][0]).eta == eta


def test_churn_is_the_sampler_that_has_it(client: TestClient) -> None:
    fields = {"prompt": "a", **SMALL, "s_churn": 5, "s_noise": 1.01}
    settings = settings_in(client.post(TXT, json=fields).json()["images"][0])
    assert settings.scheduler == "euler_churn:s_churn=5.0,s_noise=1.01"


def test_a_variation_keeps_the_seed_and_counts_the_other_on(client: TestClient) -> None:
    fields = {"prompt": "a", **SMALL, "batch_size": 2, "subseed": 8, "subseed_strength": 0.5}
    body = client.post(TXT, json=fields).json()
    drawn = [settings_in(each) for each in body["images"]]
    assert [each.variation for each in drawn] == ["8:0.5:columns", "9:0.5:columns"]
    assert [each.seed for each in drawn] == [3, 3]
    assert json.loads(body["info"])["all_subseeds"] == [8, 9]


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"sampler_name": "wat"}, 404, "Sampler not found"),
        ({"sampler_name": "mine.py"}, 404, "Sampler not found"),
        ({"scheduler": "wat"}, 404, "Scheduler not found"),
        ({"restore_faces": True}, 422, "restore_faces"),
        ({"styles": ["mine"]}, 422, "styles"),
        ({"script_name": "x/y plot"}, 422, "script_name"),
        ({"alwayson_scripts": {"ADetailer": {"args": [True, {}]}}}, 422, "alwayson_scripts"),
        ({"refiner_checkpoint": "sdxl"}, 422, "refiner_checkpoint"),
        ({"seed_resize_from_w": 64, "seed_resize_from_h": 64}, 422, "seed_resize_from_w"),
        ({"override_settings": {"sd_vae": "other.safetensors"}}, 422, "sd_vae"),
        ({"override_settings": {"eta_noise_seed_delta": 31337}}, 422, "eta_noise_seed_delta"),
        ({"override_settings": {"sd_model_checkpoint": "wat"}}, 404, "wat"),
        ({"override_settings": {"sd_model_checkpoint": "../etc/passwd"}}, 404, "unknown model"),
        ({"batch_size": 1000}, 422, "pictures"),
        ({"width": 63}, 422, "width"),
        ({"steps": 0}, 422, "steps"),
        ({"steps": 151}, 422, "steps"),
        ({"prompt": "a <lora:../../secret:1>"}, 404, "LoRA"),
        ({"prompt": "a <lora:wat:nan>"}, 404, "LoRA"),
        ({"subseed_strength": 2}, 422, "subseed_strength"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(
    client: TestClient, fields: dict[str, Any], status: int, named: str
) -> None:
    answer = client.post(TXT, json={"prompt": "a", **SMALL, **fields})
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error", "detail", "body", "errors"}
    assert named in answer.json()["detail"]


@pytest.mark.parametrize("side", [0, -64])
def test_a_side_of_nothing_is_no_side_that_was_left_out(client: TestClient, side: int) -> None:
    for name in ("width", "height"):
        answer = client.post(TXT, json={"prompt": "a", **SMALL, name: side})
        assert (answer.status_code, name in answer.json()["detail"]) == (422, True)


def test_whatever_stands_in_a_field_that_changes_nothing(client: TestClient) -> None:
    body = json.dumps({"prompt": "a", **SMALL, "comments": float("nan"), "no such": [1e999]})
    answer = client.post(TXT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200


def test_lenient_it_is_a_line_in_the_info(worker: Worker) -> None:
    from tests.server.conftest import client_of

    with client_of(worker, lenient=True) as client:
        answer = client.post(TXT, json={"prompt": "a", "restore_faces": True, **SMALL})
    assert answer.status_code == 200
    assert "restore_faces cannot be honoured" in json.loads(answer.json()["info"])["warnings"][0]


def test_fields_that_clients_send_for_nothing_do_no_harm(client: TestClient) -> None:
    fields = {
        "restore_faces": False, "save_images": True, "do_not_save_grid": True, "script_args": [],
        "alwayson_scripts": {"ADetailer": {"args": [False]}}, "enable_hr": False, "hr_scale": 2,
        "hr_upscaler": "R-ESRGAN 4x+", "styles": [], "eta": None, "wat": {"x": [None]},
        "firstphase_width": 0, "seed_resize_from_h": 0, "refiner_checkpoint": "None",
        "override_settings": {"sd_vae": "Automatic"}, "script_name": "",
    }  # fmt: skip
    answer = client.post(TXT, json={"prompt": "a", **SMALL, **fields})
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.json()["info"])["warnings"] == []


def test_extra_networks_that_are_switched_off_are_words_that_are_left_out(
    client: TestClient,
) -> None:
    fields = {"prompt": "a boat <lora:wat:0.8>", **SMALL}
    assert client.post(TXT, json=fields).status_code == 404
    answer = client.post(TXT, json={**fields, "disable_extra_networks": True}).json()
    plain = client.post(TXT, json={**fields, "prompt": "a boat"}).json()
    assert settings_in(answer["images"][0]) == settings_in(plain["images"][0])
    assert opened(answer["images"][0]).tobytes() == opened(plain["images"][0]).tobytes()


def test_what_an_edit_by_instruction_would_need_is_told_and_pictures_come_back_on_demand(
    client: TestClient,
) -> None:
    fields = {"prompt": "a", "init_images": [RED], "denoising_strength": 0.5, **SMALL}
    plain = client.post(IMG, json=fields).json()
    assert plain["parameters"]["init_images"] is None
    more = {"image_cfg_scale": 1.5, "include_init_images": True}
    answer = client.post(IMG, json={**fields, **more}).json()
    assert answer["parameters"]["init_images"] == [RED]
    assert "image_cfg_scale" in json.loads(answer["info"])["warnings"][0]
    assert answer["images"] == plain["images"]


def test_where_noise_comes_from_is_the_cpu_and_nothing_else(client: TestClient) -> None:
    fields = {"prompt": "a", **SMALL}
    assert client.get("/sdapi/v1/options").json()["randn_source"] == "CPU"
    for source, status in (("CPU", 200), ("GPU", 422), ("NV", 422)):
        answer = client.post(TXT, json={**fields, "override_settings": {"randn_source": source}})
        assert answer.status_code == status
        assert status == 200 or "randn_source" in answer.json()["detail"]


def test_the_size_that_is_told_is_the_second_passs(client: TestClient) -> None:
    fields = {"prompt": "a", **SMALL, "width": 32, "height": 32, "enable_hr": True, "hr_scale": 2}
    info = json.loads(client.post(TXT, json=fields).json()["info"])
    assert (info["width"], info["height"]) == (64, 64)
    fields = {"prompt": "a", "size": "32x32", "steps": 2, "hires": 2}
    answer = client.post("/v1/images/generations", json=fields).json()
    assert answer["size"] == "64x64"
    assert opened(answer["data"][0]["b64_json"]).size == (64, 64)


def test_a_second_pass_is_a1111s_hires_fix(client: TestClient) -> None:
    fields = {"prompt": "a", **SMALL, "enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent",
              "hr_second_pass_steps": 2, "denoising_strength": 0.5}  # fmt: skip
    answer = client.post(TXT, json=fields)
    assert answer.status_code == 200, answer.text
    assert opened(answer.json()["images"][0]).size == (96, 96)
    settings = settings_in(answer.json()["images"][0])
    assert (settings.hires, settings.hires_upscaler) == (1.5, "bilinear")
    assert int(settings.hires_steps * settings.hires_strength) == 2  # type: ignore
    resized = {**fields, "hr_resize_x": 96, "hr_resize_y": 96, "hr_scale": 3}
    other = client.post(TXT, json=resized)
    both = [opened(each.json()["images"][0]).tobytes() for each in (answer, other)]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hr_upscaler": "R-ESRGAN 4x+"}, "Hires upscaler"),
        ({"hr_scale": 1000}, "second pass"),
        ({"hr_scale": 40}, "width"),
        ({"hr_resize_x": 96, "hr_resize_y": 128}, "Hires resize"),
        ({"hr_prompt": "another"}, "hr_prompt"),
        ({"hr_checkpoint_name": "other"}, "hr_checkpoint_name"),
        ({"denoising_strength": 0}, "denoising_strength"),
        ({"hr_scale": 0}, "at least 1"),
        ({"hr_second_pass_steps": -1}, "hr_second_pass_steps"),
        ({"hr_second_pass_steps": 149}, "steps"),
    ],
)
def test_a_second_pass_that_cannot_be_drawn_says_why(
    client: TestClient, fields: dict[str, Any], named: str
) -> None:
    sent = {"prompt": "a", **SMALL, "enable_hr": True, "hr_scale": 1.5, **fields}
    answer = client.post(TXT, json=sent)
    assert answer.status_code == 422, answer.text
    assert named in answer.json()["detail"]


def test_settings_are_for_one_request_unless_they_are_to_stay(client: TestClient) -> None:
    over = {"CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": "other.safetensors [0123abcd]"}
    fields = {"prompt": "a", **SMALL, "override_settings": over}
    drawn = client.post(TXT, json=fields).json()
    assert settings_in(drawn["images"][0]).clip_skip == 2
    assert json.loads(drawn["info"])["sd_model_name"] == "other"
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "tiny"
    client.post(TXT, json={**fields, "override_settings_restore_afterwards": False})
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "other"


def test_options_take_the_whole_of_them_back(client: TestClient) -> None:
    options = client.get("/sdapi/v1/options").json()
    assert options["samples_format"] == "png"
    options |= {"sd_model_checkpoint": "other", "CLIP_stop_at_last_layers": 2, "outdir": "/etc"}
    answer = client.post("/sdapi/v1/options", json=options)
    assert (answer.status_code, answer.json()) == (200, None)
    after = client.get("/sdapi/v1/options").json()
    assert (after["sd_model_checkpoint"], after["CLIP_stop_at_last_layers"]) == ("other", 2)
    assert "outdir" not in after
    drawn = client.post(TXT, json={"prompt": "a", **SMALL}).json()
    assert settings_in(drawn["images"][0]).clip_skip == 2
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "x"}).status_code == 404


def test_lists_name_what_is_here_and_no_path(client: TestClient) -> None:
    told = {name: client.get(f"/sdapi/v1/{name}") for name in LISTS}
    assert all(answer.status_code == 200 for answer in told.values())
    lists = {name: answer.json() for name, answer in told.items()}
    assert [each["model_name"] for each in lists["sd-models"]] == ["tiny", "other"]
    samplers = [each["name"] for each in lists["samplers"]]
    assert {"Euler a", "DPM++ 2M", "UniPC"} < set(samplers)
    assert len(set(samplers)) == len(samplers)
    assert "karras" in [each["name"] for each in lists["schedulers"]]
    assert lists["memory"]["ram"]["used"] > 0
    assert lists["scripts"] == {"txt2img": [], "img2img": []}
    assert not any("/tmp" in answer.text or "/home" in answer.text for answer in told.values())


def test_every_sampler_of_the_list_draws_and_every_schedule(client: TestClient) -> None:
    from sdcore.server.a1111.fields import TextToImage
    from sdcore.server.a1111.samplers import sampling

    for sampler in client.get("/sdapi/v1/samplers").json():
        sampling(TextToImage(sampler_name=sampler["name"]))
    for schedule in client.get("/sdapi/v1/schedulers").json():
        for said in (schedule["name"], schedule["label"]):
            options, left = sampling(TextToImage(sampler_name="Euler", scheduler=said))
            assert left == {}
            assert ("spacing" in options) == (said.casefold() != "automatic")


def test_a_picture_is_drawn_from_a_picture(client: TestClient) -> None:
    fields = {"prompt": "a", **SMALL, "steps": 4, "denoising_strength": 0.5,
              "init_images": [f"data:image/png;base64,{RED}"]}  # fmt: skip
    answer = client.post(IMG, json=fields)
    assert answer.status_code == 200, answer.text
    settings = settings_in(answer.json()["images"][0])
    assert (settings.strength, settings.fit) == (0.5, "stretch")
    assert answer.json()["parameters"]["init_images"] is None


@pytest.mark.parametrize("full", [True, False])
def test_what_the_mask_leaves_black_stays_as_it_was(client: TestClient, full: bool) -> None:
    fields = {"prompt": "a", **SMALL, "init_images": [RED], "mask": coded(half()), "mask_blur": 0,
              "inpaint_full_res": full, "inpainting_fill": 1}  # fmt: skip
    answer = client.post(IMG, json=fields)
    assert answer.status_code == 200, answer.text
    picture = opened(answer.json()["images"][0]).convert("RGB")
    assert picture.crop((0, 0, 32, 64)).getcolors() == [(32 * 64, (255, 0, 0))]
    assert picture.crop((32, 0, 64, 64)).getcolors() != [(32 * 64, (255, 0, 0))]


@pytest.mark.parametrize("fill", [0, 1])
def test_a_turned_photograph_is_repainted_as_it_is_seen(client: TestClient, fill: int) -> None:
    exif = Image.Exif()
    exif[274] = 6  # seen 64 wide and 96 high
    photo, mask = Image.new("RGB", (96, 64), "red"), Image.new("L", (64, 96))
    mask.paste(255, (0, 48, 64, 96))
    buffer = io.BytesIO()
    photo.save(buffer, "PNG", exif=exif)
    sent = base64.b64encode(buffer.getvalue()).decode()
    fields = {"prompt": "a", **SMALL, "init_images": [sent], "mask": coded(mask), "mask_blur": 0,
              "inpaint_full_res": True, "inpainting_fill": fill}  # fmt: skip
    answer = client.post(IMG, json=fields)
    assert answer.status_code == 200, answer.text
    drawn = opened(answer.json()["images"][0]).convert("RGB")
    assert drawn.size == (64, 96)
    assert drawn.crop((0, 0, 64, 48)).getcolors() == [(64 * 48, (255, 0, 0))]


def test_an_inverted_mask_is_the_other_half(client: TestClient) -> None:
    fields = {"prompt": "a", **SMALL, "init_images": [RED], "mask": coded(half()), "mask_blur": 0,
              "inpainting_mask_invert": 1, "inpaint_full_res": False}  # fmt: skip
    picture = opened(client.post(IMG, json=fields).json()["images"][0]).convert("RGB")
    assert picture.crop((32, 0, 64, 64)).getcolors() == [(32 * 64, (255, 0, 0))]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"init_images": []}, "init_images"),
        ({"init_images": [RED, RED]}, "init_images"),
        ({"init_images": ["http://127.0.0.1/x.png"]}, "address"),
        ({"init_images": ["/etc/passwd"]}, "base64"),
        ({"init_images": ["file:///etc/passwd"]}, "address"),
        ({"init_images": [RED], "resize_mode": 3}, "resize_mode"),
        ({"init_images": [RED], "mask": RED, "inpainting_fill": 2}, "inpainting_fill"),
        ({"init_images": [RED], "mask": coded(Image.new("L", (64, 64)))}, "black"),
        ({"init_images": [RED], "denoising_strength": 1.5}, "strength"),
        (
            {"init_images": [RED], "mask": coded(half()), "inpaint_full_res_padding": -1000},
            "inpaint_full_res_padding",
        ),
    ],
)
def test_a_start_that_cannot_be_used_says_why(
    client: TestClient, fields: dict[str, Any], named: str
) -> None:
    answer = client.post(IMG, json={"prompt": "a", **SMALL, **fields})
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


def test_png_info_reads_what_is_in_a_picture(client: TestClient) -> None:
    drawn = client.post(TXT, json={"prompt": "a (red:1.2) boat", **SMALL}).json()["images"][0]
    told = client.post("/sdapi/v1/png-info", json={"image": drawn}).json()
    assert told["info"].startswith("a (red:1.2) boat")
    assert told["parameters"]["steps"] == 2
    assert Settings.from_json(told["items"][KEY]).seed == 3
    assert client.post("/sdapi/v1/png-info", json={"image": RED}).json()["info"] == ""


# --- progress, interrupt, skip -------------------------------------------------------------------


def test_nothing_is_drawn_progress_and_job_count_are_0(client: TestClient) -> None:
    # Clients wait for both.
    told = client.get("/sdapi/v1/progress").json()
    assert (told["progress"], told["state"]["job_count"]) == (0, 0)
    assert client.post("/sdapi/v1/interrupt").json() == {}
    assert client.post("/sdapi/v1/skip").json() == {}


class Slow:
    """A request in a thread, of many steps that each wait a little."""

    def __init__(self, client: TestClient, worker: Worker, **fields: Any) -> None:
        self.answer: Any = None
        self.client, self.worker = client, worker
        sent = {"prompt": "a", **SMALL, "steps": 60, **fields}
        self.thread = threading.Thread(target=self._ask, args=(sent,))
        self.thread.start()

    def _ask(self, sent: dict[str, Any]) -> None:
        self.answer = self.client.post(TXT, json=sent)

    def steps(self, least: int) -> None:
        """Waits until so many are done."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if sum(e.kind == "step" for j in self.worker.running for e in j.events) >= least:
                return
            time.sleep(0.002)
        raise AssertionError("no step was run")

    def end(self) -> Any:
        self.thread.join(240)
        return self.answer


@pytest.mark.usefixtures("slow_steps")
def test_progress_is_told_with_a_picture(client: TestClient, worker: Worker) -> None:
    slow = Slow(client, worker)
    slow.steps(3)
    told = client.get("/sdapi/v1/progress").json()
    assert 0 < told["progress"] < 1
    assert told["eta_relative"] > 0
    assert told["state"]["job_count"] == 1
    assert told["state"]["sampling_steps"] == 60
    assert opened(told["current_image"]).size == (64, 64)
    told = client.get("/sdapi/v1/progress", params={"skip_current_image": True}).json()
    assert told["current_image"] is None
    client.post("/sdapi/v1/interrupt")
    slow.end()


@pytest.mark.usefixtures("slow_steps")
def test_what_is_interrupted_is_answered_with_what_there_is(
    client: TestClient, worker: Worker
) -> None:
    slow = Slow(client, worker, n_iter=3)
    slow.steps(3)
    client.post("/sdapi/v1/interrupt")
    answer = slow.end()
    assert answer.status_code == 200
    assert [opened(each).size for each in answer.json()["images"]] == [(64, 64)]
    assert KEY not in opened(answer.json()["images"][0]).text  # by these it would be another
    info = json.loads(answer.json()["info"])
    assert "interrupted" in info["warnings"][0]
    assert len(info["all_seeds"]) == len(info["infotexts"]) == 1
    assert worker.load == 0


def test_a_skipped_picture_is_followed_by_the_next(
    client: TestClient, worker: Worker, slow_steps: Pace
) -> None:
    slow = Slow(client, worker, n_iter=2, steps=20)
    slow.steps(3)
    client.post("/sdapi/v1/skip")
    slow_steps.seconds = 0
    answer = slow.end()
    assert answer.status_code == 200
    seeds = [settings_in(each).seed for each in answer.json()["images"][:1]]
    assert seeds == [4]


@pytest.mark.usefixtures("slow_steps")
def test_others_are_neither_seen_nor_interrupted(client: TestClient, worker: Worker) -> None:
    slow = Slow(client, worker)
    slow.steps(2)
    other = TestClient(client.app, base_url="http://127.0.0.1", client=("10.0.0.2", 5))  # type: ignore
    told = other.get("/sdapi/v1/progress").json()
    assert (told["progress"], told["current_image"]) == (0, None)
    other.post("/sdapi/v1/interrupt")
    assert client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 1
    client.post("/sdapi/v1/interrupt")
    slow.end()


def test_a_preview_is_of_the_job_that_was_asked_after(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where somebody else asks after another one while the first is decoded."""
    mine, other = Job(Choice("tiny"), cost=0), Job(Choice("tiny"), cost=0)
    mine.kept["last"] = other.kept["last"] = "a step"
    desk = Desk(worker)

    async def decoded(worker: Worker, job: Job) -> Image.Image | None:
        if job is other:
            return half()
        assert await desk.preview(other) is not None
        return None

    monkeypatch.setattr("sdcore.server.a1111.routes.decoded", decoded)
    assert asyncio.run(desk.preview(mine)) is None


def test_a_request_that_does_not_fit_takes_no_place(worker: Worker) -> None:
    from sdcore.server.limits import Limits
    from tests.server.conftest import client_of

    small = Worker(worker.models, Limits(work=0.04))
    release = threading.Event()

    def work(networks: Any, jobs: Sequence[Job]) -> None:
        release.wait(10)

    with client_of(small) as client:
        held = small.submit(work, cost=0.01)
        answer = client.post(TXT, json={"prompt": "a", **SMALL, "n_iter": 3})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert small.queued == []
        release.set()
        assert held.wait(10)
