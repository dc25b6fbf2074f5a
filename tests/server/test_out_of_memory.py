"""Where memory runs out in a server: leaner, then fewer at once, then smaller where that is asked
for, and every answer says so."""

import base64
import gc
import io
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sdcore.denoiser import Denoiser
from sdcore.filters import Filter
from sdcore.models import UNet
from sdcore.server import drawings, studies
from sdcore.server.asked import read
from sdcore.server.jobs import AGAIN, Job
from sdcore.server.limits import Limits
from sdcore.server.models import Models
from sdcore.server.refusals import NoRoom, Refused
from sdcore.server.worker import Worker
from tests.allocators import failing, roomy
from tests.server.conftest import client_of

SOURCE = {"device": "cpu", "memory": "fast", "engine": "plain"}
SMALL = {"prompt": "a", "steps": 2, "width": 64, "height": 64}
LATENT = 4  # channels


@pytest.fixture
def models(tiny_path: Path) -> Models:
    """Of its own: what happens to it is not for the other tests."""
    models = Models({"tiny": str(tiny_path), "other": str(tiny_path)}, source=SOURCE)
    models.networks(models.choice())
    return models


@pytest.fixture
def batching(models: Models) -> Iterator[Worker]:
    """It takes four pictures at once, and has not begun."""
    worker = Worker(models, Limits(batch=4))
    yield worker
    worker.stop()


def asked(worker: Worker, **own: Any) -> Job:
    return drawings.submit(worker, read({**SMALL, **own}, worker.models, worker.limits))


def alone(models: Models, *filters: Filter, **own: Any) -> Any:
    """What is drawn of such a request by itself."""
    worker = Worker(models, Limits(), filters)
    worker.start()
    job = asked(worker, **own)
    assert job.wait(240)
    assert worker.stop()
    return job.result[0]


def notes(job: Job) -> list[str]:
    return [e.data["line"] for e in job.events if e.kind == "note"]


def latents(pictures: int, side: int) -> int:
    return pictures * LATENT * (side // 8) ** 2


# --- the ladder ----------------------------------------------------------------------------------


def test_a_leaner_mode_first_and_the_picture_is_the_same(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = alone(models, seed=1)
    with monkeypatch.context() as patch:
        failing(patch, UNet, "forward", {1})
        with client_of(Worker(models, Limits())) as client:
            body = {"prompt": "a", "num_inference_steps": 2, "guidance_scale": 7.5, "seed": 1,
                    "width": 64, "height": 64}  # fmt: skip
            answer = client.post("/generate", json=body).json()
            counted = client.get("/metrics").text
    picture = Image.open(io.BytesIO(base64.b64decode(answer["image_base64"])))
    assert picture.convert("RGB").tobytes() == whole.picture.tobytes()
    assert answer["metadata"]["memory"] == "sliced"
    assert "out of memory; going on with --memory sliced" in answer["metadata"]["notes"]
    assert "fallback" not in answer["metadata"]
    assert "sdcore_out_of_memory_total 1.0" in counted
    assert models.networks(models.choice()).memory == "sliced"  # it stays in what fits


def test_then_fewer_at_once(
    models: Models, batching: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = [alone(models, seed=seed) for seed in (1, 2, 3, 4)]
    seen = roomy(monkeypatch, Denoiser, "__call__", latents(2, 64))
    jobs = [asked(batching, seed=seed) for seed in (1, 2, 3, 4)]
    batching.start()
    assert all(job.wait(240) for job in jobs)
    assert [job.error for job in jobs] == [None] * 4
    assert {e.data["batch"] for job in jobs for e in job.events if e.kind == "step"} == {2}
    assert max(seen) == latents(4, 64)
    for job, one in zip(jobs, single, strict=True):
        assert job.result[0].picture.tobytes() == one.picture.tobytes()
        assert job.result[0].settings.memory == "low"
        assert "out of memory; going on with batches of 2" in notes(job)


def test_a_smaller_picture_only_where_it_is_asked_for_and_it_says_so(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy(monkeypatch, Denoiser, "__call__", latents(1, 96))
    size = {"width": 128, "height": 128}
    worker = Worker(models, Limits())
    with client_of(worker) as client:
        body = {"prompt": "a", "num_inference_steps": 2, "seed": 1}
        smaller = client.post("/generate", json={**body, **size})
        refused = client.post("/v1/images/generations", json={**body, "size": "128x128"})
        theirs = {"prompt": "a", "steps": 2, "seed": 1, **size}
        also = client.post("/sdapi/v1/txt2img", json=theirs)
        ours = client.post("/runs", json={"prompt": "a", "steps": 2, "fallback": "size", **size})
        assert worker.find(ours.json()["id"]).wait(240)
        run = client.get(f"/runs/{ours.json()['id']}").json()
    told = smaller.json()["metadata"]
    assert (told["width"], told["height"]) == (96, 96)
    assert told["fallback"] == {"kind": "size", "asked": [128, 128]}
    assert told["memory"] == "low"
    assert (refused.status_code, also.status_code) == (507, 507)
    assert "out of memory on cpu for 128x128" in refused.json()["error"]["message"]
    assert (run["state"], run["steps"], len(run["numbers"])) == ("done", 2, 2)
    assert run["settings"]["asked"] == [128, 128]


def test_steps_that_are_void_are_not_told_as_steps_of_the_picture(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdcore.models import VAE

    failing(monkeypatch, VAE, "decode", range(5))  # its steps are done, once for each mode
    worker = Worker(models, Limits())
    worker.start()
    size = {"width": 128, "height": 96, "fallback": "size"}
    job = studies.begin(worker, {**SMALL, "seed": 1, **size})
    assert job.wait(240)
    assert job.error is None
    study = studies.study_of(job)
    kinds = [e.kind for e in job.events if e.kind in ("kept", AGAIN)]
    assert kinds == ["kept", "kept", AGAIN, "kept", "kept"]
    assert [each.step.x.shape[-2:] for each in study.steps] == [(9, 12)] * 2
    assert [each.number for each in study.steps] == [0, 1]
    assert job.size == study.held + 96 * 72 * 3
    assert worker.stop()


# --- what is asked for beside others -------------------------------------------------------------


def test_one_bad_request_of_a_batch_leaves_the_others_unharmed(
    models: Models, batching: Worker
) -> None:
    def picky(images: list[Any], settings: Any) -> Any:
        if any(each.seed == 2 for each in settings):
            raise ValueError("2 is not liked")
        return images, [False] * len(images)

    single = {seed: alone(models, picky, seed=seed) for seed in (1, 3)}
    batching.filters = (picky,)
    jobs = {seed: asked(batching, seed=seed) for seed in (1, 2, 3)}
    batching.start()
    assert all(job.wait(240) for job in jobs.values())
    assert [job.state for job in jobs.values()] == ["done", "failed", "done"]
    assert "2 is not liked" in str(jobs[2].error)
    for seed, one in single.items():
        assert jobs[seed].result[0].picture.tobytes() == one.picture.tobytes()
        assert jobs[seed].result[0].settings == one.settings
        kinds = [e.kind for e in jobs[seed].events]
        assert kinds == ["running", "step", "step", AGAIN, "step", "step", "picture", "done"]


def test_what_is_done_of_a_batch_is_not_drawn_again(
    models: Models, batching: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdcore.networks import Networks

    roomy(monkeypatch, Denoiser, "__call__", latents(1, 64))  # so each picture comes by itself
    real, decoded = Networks.decode, []

    def broken(self: Any, latents: Any) -> Any:
        decoded.append(len(latents))
        if len(decoded) == 2:
            raise ZeroDivisionError
        return real(self, latents)

    monkeypatch.setattr(Networks, "decode", broken)
    jobs = [asked(batching, seed=seed) for seed in (1, 2, 3)]
    batching.start()
    assert all(job.wait(240) for job in jobs)
    assert [job.state for job in jobs] == ["done"] * 3
    assert decoded == [1, 1, 1, 1]  # the second one twice
    assert [sum(e.kind == "picture" for e in job.events) for job in jobs] == [1] * 3


# --- what is remembered ---------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["done", "failed", "out of memory"])
def test_a_remembered_job_holds_on_to_no_networks(
    models: Models, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    def broken(self: Any, x: Any, sigma: float) -> Any:
        raise ZeroDivisionError

    unet = weakref.ref(models.networks(models.choice()).unet)
    worker = Worker(models, Limits())
    worker.start()
    with monkeypatch.context() as patch:
        if ends == "failed":
            patch.setattr(Denoiser, "__call__", broken)
        if ends == "out of memory":
            roomy(patch, Denoiser, "__call__", 0)
        job = studies.begin(worker, {**SMALL, "seed": 1})
        assert job.wait(240)
    assert job.state == ("done" if ends == "done" else "failed")
    assert isinstance(job.error, {"done": type(None), "failed": Refused}.get(ends, NoRoom))
    assert asked(worker, model="other", seed=1).wait(240)
    assert models.loaded == ("other",)
    gc.collect()
    assert worker.find(job.id) is job
    assert unet() is None
    assert worker.stop()


ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "generate": ("/generate", {"prompt": "a", "num_inference_steps": 2}),
    "openai": ("/v1/images/generations", {"prompt": "a", "steps": 2}),
    "a1111": ("/sdapi/v1/txt2img", {"prompt": "a", "steps": 2}),
    "a failure": ("/sdapi/v1/txt2img", {"prompt": "a", "steps": 2, "seed": 2}),
    "native": ("/runs", {"prompt": "a", "steps": 2}),
}


@pytest.mark.parametrize("face", ASKED)
def test_no_tensor_waits_in_a_circle_for_the_collector(models: Models, face: str) -> None:
    """Python's collector of circles comes seldom: what waits for it looks like a leak."""

    def picky(images: list[Any], settings: Any) -> Any:
        if settings[0].seed == 2:
            raise ValueError("2 is not liked")
        return images, [False]

    path, body = ASKED[face]
    worker = Worker(models, Limits(), (picky,))
    with client_of(worker) as client:

        def ask() -> None:
            answer = client.post(path, json={"seed": 1, "width": 64, "height": 64, **body})
            assert answer.status_code == (422 if face == "a failure" else answer.status_code)
            if face == "native":
                id = answer.json()["id"]
                assert worker.find(id).wait(240)
                client.delete(f"/runs/{id}")

        ask()
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            ask()
            while not worker.idle:
                time.sleep(0.001)
            gc.collect()
            kept = [each for each in gc.garbage if isinstance(each, torch.Tensor)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not kept
