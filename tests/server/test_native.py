"""Runs whose steps are kept: streamed, resumed, branched, copied."""

import base64
import io
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from sdcore.images import read_settings
from sdcore.loading import load
from sdcore.sampling import State
from sdcore.server.asked import read
from sdcore.server.jobs import CANCELLED, DONE, ENDED
from sdcore.server.limits import Limits
from sdcore.server.models import Models
from sdcore.server.studies import begin, study_of
from sdcore.server.worker import Worker
from tests.server.conftest import Pace, client_of

ASKED = {"prompt": "a red boat", "seed": 3, "scheduler": "euler_a", "steps": 6}
Command = Callable[..., tuple[int, Path, str]]


def events(client: TestClient, id: str, after: int | None = None) -> list[dict[str, Any]]:
    """The whole stream of a run, to its end."""
    headers = {} if after is None else {"last-event-id": str(after)}
    told = []
    with client.stream("GET", f"/runs/{id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for block in "".join(answer.iter_text()).split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if line)
            if "data" in fields:
                told.append({**fields, "data": json.loads(fields["data"]), "id": int(fields["id"])})
    return told


def drawn(client: TestClient, **asked: Any) -> dict[str, Any]:
    """A run that has ended."""
    answer = client.post("/runs", json={**ASKED, **asked})
    assert answer.status_code == 202, answer.text
    return ended(client, answer.json()["id"])


def ended(client: TestClient, id: str) -> dict[str, Any]:
    end = time.monotonic() + 240
    while (run := client.get(f"/runs/{id}").json())["state"] not in ENDED:
        assert time.monotonic() < end
        time.sleep(0.01)
    return run


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).tobytes()


def latents(text: str, shape: list[int]) -> torch.Tensor:
    raw = bytearray(base64.b64decode(text))
    return torch.frombuffer(raw, dtype=torch.float16).reshape(shape).float()


def branched(client: TestClient, run: dict[str, Any], taken: int, **changes: Any) -> dict[str, Any]:
    answer = client.post(f"/runs/{run['id']}/branch", json={"steps": taken, "changes": changes})
    assert answer.status_code == 202, answer.text
    return ended(client, answer.json()["id"])


def copied(client: TestClient, run: dict[str, Any], command: Command, folder: Path) -> set[bytes]:
    """The pixels of the picture, of its command and of its Python."""
    for line in run["command"].splitlines():
        status, path, err = command(*shlex.split(line)[1:])
        assert status == 0, err
    exec(run["python"], {})
    there = client.get(f"/runs/{run['id']}/picture.png").content
    return {pixels(there), Image.open(path).tobytes(), Image.open("picture.png").tobytes()}


def test_steps_are_streamed_whole(client: TestClient, tiny_path: Path) -> None:
    """What a page is told of every step is what Python sees, to the digits of a float16."""
    run = drawn(client)
    told = events(client, run["id"])
    assert [each["id"] for each in told] == sorted(each["id"] for each in told)
    steps = [each["data"] for each in told if each["event"] == "step"]
    assert [each["index"] for each in steps] == list(range(6))
    assert told[-1]["event"] == DONE
    sd = load(tiny_path, device="cpu")
    with torch.inference_mode():
        run = sd.prepare("a red boat", seeds=[3], scheduler="euler_a", steps=6)
        for step, data in zip(run, steps, strict=True):
            prediction, shape = step.prediction, data["shape"]
            difference = prediction.branches["cond"].eps - prediction.branches["uncond"].eps
            views = {
                "x": step.x / (1 + step.sigma**2) ** 0.5,
                "x0": prediction.x0,
                "eps": prediction.eps,
                "difference": difference,
            }
            for name, view in views.items():
                error = (latents(data[name], shape) - view[0]).abs() / view[0].abs().clamp_min(1e-2)
                assert error.max() < 1e-3
            assert data["rms"]["x0"] == pytest.approx(prediction.x0.square().mean().sqrt().item())
            assert (data["sigma"], data["nfe"]) == (step.sigma, step.nfe)


def test_a_stream_goes_on_where_it_was_broken(client: TestClient) -> None:
    run = drawn(client)
    told = events(client, run["id"])
    for at in (2, 5, len(told)):
        assert events(client, run["id"], told[at - 1]["id"]) == told[at:]


def test_a_branch_with_nothing_changed_is_the_same_picture(client: TestClient) -> None:
    for scheduler in ("euler_a", "dpmpp_2m"):
        run = drawn(client, scheduler=scheduler)
        whole = client.get(f"/runs/{run['id']}/picture.png").content
        for steps in (1, 4):
            branch = branched(client, run, steps)
            assert client.get(f"/runs/{branch['id']}/picture.png").content == whole
            assert (branch["parent"], branch["taken"], branch["steps"]) == (
                run["id"],
                steps,
                6 - steps,
            )
    again = branched(client, branch, 1)
    assert client.get(f"/runs/{again['id']}/picture.png").content == whole


def test_what_is_copied_draws_the_same(
    client: TestClient, command: Command, tmp_path: Path
) -> None:
    """Of a run, of a branch in the same steps, and of one of that with another solver."""
    run = drawn(client, cfg=4, guidance="cfg+rescale:share=0.7")
    first = branched(client, run, 2, prompt="-a blue boat", seed=8)
    second = branched(client, first, 1, scheduler="heun", steps=9, negative="red")
    for each in (run, first, second):
        assert len(copied(client, each, command, tmp_path)) == 1
    assert (
        len({client.get(f"/runs/{r['id']}/picture.png").content for r in (run, first, second)}) == 3
    )


def test_what_is_copied_of_a_picture_that_is_repainted(
    client: TestClient, command: Command, tmp_path: Path
) -> None:
    image, mask = Image.effect_noise((32, 32), 80).convert("RGB"), Image.new("L", (32, 32))
    mask.paste(255, (8, 8, 24, 24))

    def encoded(picture: Image.Image) -> str:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    run = drawn(client, image=encoded(image), mask=encoded(mask), strength=0.7, paste=True)
    assert run["pictures"] == ["image", "mask"]
    branch = branched(client, run, 2, cfg=2)
    for name in run["pictures"]:
        (tmp_path / f"{name}.png").write_bytes(client.get(f"/runs/{run['id']}/{name}.png").content)
    for each in (run, branch):
        assert len(copied(client, each, command, tmp_path)) == 1


def test_the_picture_is_that_of_the_command_line(client: TestClient, tmp_path: Path) -> None:
    run = drawn(client)
    data = client.get(f"/runs/{run['id']}/picture.png").content
    (tmp_path / "picture.png").write_bytes(data)
    settings = read_settings(tmp_path / "picture.png")
    assert (settings.prompt, settings.seed, settings.steps) == ("a red boat", 3, 6)
    found = client.post("/settings", json={"picture": base64.b64encode(data).decode()}).json()
    assert found["left"] == []
    assert found["values"]["model"] == "tiny"
    again = drawn(client, **{**found["values"], "prompt": "a red boat"})
    assert pixels(client.get(f"/runs/{again['id']}/picture.png").content) == pixels(data)


def test_a_state_goes_on_by_hand(client: TestClient, command: Command, tmp_path: Path) -> None:
    run = drawn(client)
    data = client.get(f"/runs/{run['id']}/steps/3/state.safetensors").content
    (tmp_path / "there.safetensors").write_bytes(data)
    assert State.load(tmp_path / "there.safetensors").index == 4
    _, path, _ = command("resume", "there.safetensors")
    whole = client.get(f"/runs/{run['id']}/picture.png").content
    assert Image.open(path).tobytes() == pixels(whole)


def test_views_are_decoded(client: TestClient, tiny_path: Path) -> None:
    run = drawn(client)
    last = client.get(f"/runs/{run['id']}/steps/5/picture.png").content
    sd = load(tiny_path, device="cpu")
    with torch.inference_mode():
        *_, step = sd.prepare("a red boat", seeds=[3], scheduler="euler_a", steps=6)
        assert sd.decode(step.prediction.x0)[0].tobytes() == pixels(last)
    for place in ("steps/5/picture.png?view=y", "steps/6/picture.png", "steps/9/state.safetensors"):
        assert client.get(f"/runs/{run['id']}/{place}").status_code == 404


def test_a_reference_and_the_distance_to_it(client: TestClient) -> None:
    """Heun in 60 steps: Heun in 6 is nearer to it than Euler in 12 is."""
    far = {}
    for scheduler, steps in (("euler", 12), ("heun", 6)):
        run = drawn(client, scheduler=scheduler, steps=steps, spacing="karras")
        reference = ended(client, client.post(f"/runs/{run['id']}/reference").json()["id"])
        assert (reference["state"], reference["reference_of"]) == (DONE, run["id"])
        assert reference["command"] is None
        curve = client.get(f"/runs/{run['id']}/distance?to={reference['id']}").json()
        assert [each["number"] for each in curve] == list(range(steps + 1))
        assert curve[0]["rms"] == 0
        far[scheduler] = curve[-1]["rms"]
    assert 0 < far["heun"] < far["euler"]


def test_to_cancel_is_idempotent(worker: Worker, client: TestClient, slow_steps: Pace) -> None:
    id = client.post("/runs", json={**ASKED, "steps": 150}).json()["id"]
    answers = [client.post(f"/runs/{id}/cancel").json()["cancelled"]]
    slow_steps.seconds = 0
    assert ended(client, id)["state"] == CANCELLED
    answers += [client.post(f"/runs/{id}/cancel").json()["cancelled"] for _ in range(2)]
    assert answers == [True, False, False]
    assert events(client, id)[-1]["event"] == CANCELLED
    done = drawn(client)
    assert client.post(f"/runs/{done['id']}/cancel").json() == {"cancelled": False}
    assert client.get(f"/runs/{done['id']}/picture.png").status_code == 200


def test_a_branch_outlives_what_it_came_from(client: TestClient) -> None:
    run = drawn(client)
    whole = client.get(f"/runs/{run['id']}/picture.png").content
    branch = branched(client, run, 2)
    assert client.delete(f"/runs/{run['id']}").json() == {"forgotten": True}
    assert client.get(f"/runs/{run['id']}").status_code == 404
    again = branched(client, branch, 2)
    assert client.get(f"/runs/{again['id']}/picture.png").content == whole
    assert "--stop-after 2" in again["command"]


def test_old_runs_give_way(tiny_models: Models) -> None:
    worker = Worker(tiny_models, Limits(kept=20_000))
    worker.start()
    jobs = []
    for seed in range(4):
        jobs.append(begin(worker, {**ASKED, "seed": seed}))
        jobs[-1].wait(60)
    kept = worker.jobs
    worker.stop()
    assert all(job.size > 1000 for job in jobs)
    assert jobs[0] not in kept
    assert jobs[-1] in kept
    held = study_of(jobs[-1]).steps
    assert jobs[-1].size >= sum(
        t.nbytes for t in {t.data_ptr(): t for k in held for t in k.tensors}.values()
    )


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"steps": 9, "changes": {}}, "1 to 6 steps"),
        ({"steps": 0, "changes": {}}, "1 to 6 steps"),
        ({"steps": True, "changes": {}}, "a branch is"),
        ({"steps": 2, "changes": []}, "a branch is"),
        ({"changes": {}}, "a branch is"),
        ({"steps": 2, "changes": {"width": 64}}, "width is what the run began with"),
        ({"steps": 2, "changes": {"model": "other"}}, "model is what the run began with"),
        ({"steps": 2, "changes": {"loras": ["x"]}}, "loras is what the run began with"),
        ({"steps": 2, "changes": {"scheduler": "mine.py"}}, "names a file"),
        ({"steps": 2, "changes": {"cgf": 3}}, "unknown change 'cgf'"),
        ({"steps": 2, "changes": {"prompt": ["a", "b"]}}, "one picture"),
        ({"steps": 2, "changes": {"seed": [1, 2]}}, "one picture"),
        ({"steps": 6, "changes": {"cfg": 3}}, "nothing is left below"),
        ({"steps": 2, "changes": {"spacing": "sigmas:14,13"}}, "nothing to go on with"),
    ],
)
def test_what_no_branch_is(client: TestClient, asked: dict[str, Any], why: str) -> None:
    run = drawn(client)
    answer = client.post(f"/runs/{run['id']}/branch", json=asked)
    if answer.status_code == 202:  # told by the run: it is seen only when the sigmas are laid
        answer_text = ended(client, answer.json()["id"])["error"]
    else:
        assert answer.status_code == 422
        answer_text = answer.text
    assert why in answer_text


def test_nothing_is_left_where_a_schedule_ends_above_0(client: TestClient) -> None:
    run = drawn(client, scheduler="ddim", steps=3)
    assert run["numbers"][-1]["sigma_next"] > 0
    asked = {"steps": 3, "changes": {"cfg": 3}}
    answer = client.post(f"/runs/{run['id']}/branch", json=asked)
    assert (answer.status_code, "nothing is left" in answer.text) == (422, True)


def test_a_branch_brings_no_adapter_by_its_prompt(tiny_models: Models, tiny_path: Path) -> None:
    models = Models(tiny_models.places, loras={"mine": "mine.safetensors"})
    models._loaded = tiny_models._loaded
    with client_of(Worker(models, Limits())) as client:
        run = drawn(client)
        changes = {"grammar": "a1111", "prompt": "a <lora:mine:1>"}
        asked = {"steps": 2, "changes": changes}
        answer = client.post(f"/runs/{run['id']}/branch", json=asked)
    assert (answer.status_code, "adapter" in answer.json()["detail"]) == (422, True)


def test_a_model_of_the_hub_is_asked_for_by_its_name_with_a_slash(tiny_path: Path) -> None:
    with client_of(
        Worker(Models({"somebody/tiny": str(tiny_path)}, source={"device": "cpu"}))
    ) as c:
        for path in ("/models/somebody/tiny", "/models/somebody%2Ftiny"):
            assert c.get(path).json()["name"] == "somebody/tiny"
        assert c.get("/models/somebody").status_code == 404


def test_lists_and_plans(client: TestClient) -> None:
    assert client.get("/models").json()["default"] == "tiny"
    names = {each["name"]: each for each in client.get("/schedulers").json()}
    assert names["heun"]["nfe"] == 2
    assert {"karras", "a1111:beta"} <= {each["name"] for each in client.get("/spacings").json()}
    written = {each["name"]: each["written"] for each in client.get("/guidances").json()}
    assert written["rescale"] == "rescale:share=0.7,form=eps"
    model = client.get("/models/tiny").json()
    assert (model["width"], model["multiple"], len(model["colours"]["weights"][0])) == (32, 8, 4)
    asked = {"scheduler": "heun", "spacing": "karras", "cfg": 3}
    plan = client.post("/plan", json={**asked, "steps": 6}).json()
    assert (plan["nfe"], plan["steps"], len(plan["rows"])) == (22, 6, 7)
    equal = client.post("/plan", json={**asked, "nfe": 40}).json()
    assert (equal["steps"], equal["nfe"]) == (10, 38)  # 11 steps take 42
    assert client.post("/plan", json={"scheduler": "huen"}).status_code == 422


@pytest.mark.parametrize("more", [{"steps": 20}, {"nfe": 200}])
def test_a_plan_of_a_solver_that_asks_very_often_is_refused_before_it_is_counted(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    import sdcore.schedulers.solvers.restart as module

    steps, real = [], module.karras
    monkeypatch.setattr(module, "karras", lambda *args: steps.append(args[-1]) or real(*args))
    asked = {"scheduler": "restart:restarts=100,restart_steps=1000", "width": 64, "height": 64}
    answer = client.post("/plan", json={**asked, **more})
    if "nfe" in more:  # so few steps that there is nothing to restart between
        assert answer.json()["nfe"] <= 200
    else:
        assert "more than 10000 times for one picture" in answer.json()["detail"]
    assert len(steps) <= 8  # one for each number of steps that is tried
    drawn = client.post("/runs", json={"prompt": "a", **asked, "steps": 20})
    assert drawn.status_code == 422


@pytest.mark.parametrize(
    "begins",
    [
        {"strength": 0.5},
        {"start_step": 4},
        {"start_sigma": 3.0},
        {"strength": 0.7, "hires": 2.0, "hires_strength": 0.5, "hires_steps": 4},
    ],
    ids=lambda begins: "-".join(begins),
)
def test_a_plan_is_what_runs(client: TestClient, begins: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
    asked = {**begins, "image": base64.b64encode(buffer.getvalue()).decode(), "scheduler": "heun"}
    plan = client.post("/plan", json={**asked, "steps": 6}).json()
    run = drawn(client, **asked, steps=6)
    steps = [e["data"] for e in events(client, run["id"]) if e["event"] == "step"]
    rows = [(row["sigma"], row["nfe"]) for row in plan["rows"][:-1]]
    assert rows == [(step["sigma"], step["nfe"]) for step in steps]
    assert plan["rows"][-1]["sigma"] == steps[-1]["sigma_next"]
    assert (plan["steps"], plan["nfe"], plan["asked_steps"]) == (len(steps), run["nfe"], 6)
    most = client.post("/plan", json={**asked, "nfe": 40}).json()
    more = client.post("/plan", json={**asked, "steps": most["asked_steps"] + 1}).json()
    assert most["nfe"] <= 40 < more["nfe"] or most["nfe"] == more["nfe"]


def test_settings_of_a_stranger(client: TestClient) -> None:
    """A file of code and a foreign place are lines, and neither is opened."""
    from PIL.PngImagePlugin import PngInfo

    from sdcore.images import KEY

    run = drawn(client)
    data = client.get(f"/runs/{run['id']}/picture.png").content
    raw = json.loads(Image.open(io.BytesIO(data)).text[KEY])
    raw |= {"scheduler": "evil.py", "model": "//host/share", "loras": ["/etc/passwd:0.5"]}
    info, buffer = PngInfo(), io.BytesIO()
    info.add_text(KEY, json.dumps(raw))
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    found = client.post("/settings", json={"picture": base64.b64encode(buffer.getvalue()).decode()})
    values, left = found.json()["values"], " | ".join(found.json()["left"])
    assert not {"scheduler", "model"} & values.keys()
    assert values["loras"] == []
    for part in ("a file of code", "share is not among", "passwd is not here"):
        assert part in left
    empty = io.BytesIO()
    Image.new("RGB", (8, 8)).save(empty, "PNG")
    for bad in (base64.b64encode(empty.getvalue()).decode(), "no picture", None):
        assert client.post("/settings", json={"picture": bad}).status_code == 422


def test_settings_of_a_run(client: TestClient) -> None:
    """They are what its picture says, to ask for it again; a seed may be a text of digits."""
    run = drawn(client, seed=str(2**64 - 1), clip_skip=2, steps=2)
    assert run["seed"] == 2**64 - 1
    data = client.get(f"/runs/{run['id']}/picture.png").content
    said = {"picture": base64.b64encode(data).decode()}
    of_run = client.post("/settings", json={"run": run["id"]}).json()
    assert of_run == client.post("/settings", json=said).json()
    again = ended(client, client.post("/runs", json=of_run["values"]).json()["id"])
    assert pixels(client.get(f"/runs/{again['id']}/picture.png").content) == pixels(data)
    assert client.post("/settings", json={"run": "none"}).status_code == 404
    for seed in ("1.5", "", "9" * 21, "٣"):
        assert client.post("/runs", json={**ASKED, "seed": seed}).status_code == 422


def test_what_is_0_is_said_as_0(client: TestClient) -> None:
    run = drawn(client, seed=0, cfg=0, steps=2, scheduler="ddim", eta=0)
    data = client.get(f"/runs/{run['id']}/picture.png").content
    values = client.post("/settings", json={"run": run["id"]}).json()["values"]
    assert [values.get(name) for name in ("seed", "cfg", "eta")] == [0, 0, 0]
    again = ended(client, client.post("/runs", json=values).json()["id"])
    assert pixels(client.get(f"/runs/{again['id']}/picture.png").content) == pixels(data)


def test_one_picture_a_run(client: TestClient, worker: Worker) -> None:
    assert client.post("/runs", json={**ASKED, "seed": [1, 2]}).status_code == 422
    assert read(ASKED, worker.models, worker.limits).pictures == 1


def test_the_page_is_there_and_may_load_nothing_else(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert client.get("/page/style.css").headers["content-type"].startswith("text/css")
    for name in ("../app.py", "app.py", "%2e%2e/app.py", "nothing.js"):
        assert client.get(f"/page/{name}").status_code == 404


def test_steps_are_kept_back_where_filters_look_at_pictures(tiny_models: Models) -> None:
    worker = Worker(tiny_models, Limits(), [lambda images, **info: (images, [False] * len(images))])
    with client_of(worker) as client:
        run = drawn(client)
        steps = [e["data"] for e in events(client, run["id"]) if e["event"] == "step"]
        assert all(
            each[view] is None for each in steps for view in ("x", "x0", "eps", "difference")
        )
        assert steps[0]["rms"]["x0"] > 0
        for place in ("steps/3/picture.png", "steps/3/state.safetensors"):
            answer = client.get(f"/runs/{run['id']}/{place}")
            assert (answer.status_code, "filters its pictures" in answer.text) == (422, True)
        assert client.get(f"/runs/{run['id']}/picture.png").status_code == 200


def test_a_second_pass_is_larger(client: TestClient) -> None:
    """Its steps are streamed like the first one's; what it grew by is no change of a step."""
    run = drawn(client, hires=2.0, steps=3, scheduler="euler", hires_strength=0.7)
    steps = [e["data"] for e in events(client, run["id"]) if e["event"] == "step"]
    assert [each["shape"] for each in steps] == [[4, 4, 4]] * 3 + [[4, 8, 8]] * 2
    assert ["change" in each["rms"] for each in steps] == [False, True, True, False, True]
    branches = [("branch", {"steps": steps, "changes": {}}) for steps in (1, 3)]
    for place, body in (*branches, ("reference", None)):
        answer = client.post(f"/runs/{run['id']}/{place}", json=body)
        assert (answer.status_code, "second pass" in answer.text) == (422, True)
    assert client.get(f"/runs/{run['id']}").status_code == 200
    answer = client.get(f"/runs/{run['id']}/distance", params={"to": run["id"]})
    assert (answer.status_code, "two sizes" in answer.text) == (422, True)


def test_states_of_both_passes_go_on(client: TestClient, command: Command, tmp_path: Path) -> None:
    """Each counts in the sigmas of its own pass."""
    run = drawn(client, hires=2.0, steps=4, scheduler="euler", hires_scheduler="heun")
    whole = pixels(client.get(f"/runs/{run['id']}/picture.png").content)
    for number in (1, 4):
        data = client.get(f"/runs/{run['id']}/steps/{number}/state.safetensors").content
        (tmp_path / "there.safetensors").write_bytes(data)
        status, path, err = command("resume", "there.safetensors")
        assert status == 0, err
        assert Image.open(path).tobytes() == whole


def test_no_folder_is_named_to_others(tiny_path: Path) -> None:
    """Where a server hides its places, commands and states name the model alone."""
    models = Models({"tiny": str(tiny_path)}, source={"device": "cpu"}, hidden=True)
    with client_of(Worker(models, Limits())) as client:
        run = drawn(client, steps=2)
        branch = branched(client, run, 1)
        for id in (run["id"], branch["id"]):
            assert str(tiny_path) not in client.get(f"/runs/{id}").text
        assert "--model tiny" in branch["command"]
        state = client.get(f"/runs/{run['id']}/steps/0/state.safetensors").content
        assert str(tiny_path).encode() not in state


def test_errors_name_no_folder_to_others(tiny_path: Path, tmp_path: Path) -> None:
    """Of a job that failed, and of a request that is refused at once."""
    (wrong := tmp_path / "wrong.safetensors").write_bytes(b"nothing")
    source = {"device": "cpu"}
    for hidden in (True, False):
        models = Models(
            {"tiny": str(tiny_path)}, {"wrong": str(wrong)}, source=source, hidden=hidden
        )
        with client_of(Worker(models, Limits())) as client:
            run = drawn(client, loras=["wrong"])
            id = run["id"]
            told = [run["error"], client.get(f"/runs/{id}/events").text]
            told.append(client.post("/plan", json={"loras": ["wrong"]}).text)
            assert [str(tmp_path) in each for each in told] == [not hidden] * 3
            assert all("wrong" in each for each in told)
