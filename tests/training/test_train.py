"""A whole training: stopped and gone on with, looked at, gone wrong."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sdcore.errors import InputError
from sdcore.images import open_picture
from sdcore.models import VAE
from sdcore.pipeline import StableDiffusion
from sdcore.training.plan import Plan
from sdcore.training.record import Record
from sdcore.training.signals import Stopped
from sdcore.training.train import train
from sdcore.training.updates import TrainStep
from sdcore.training.watcher import Silent
from tests.training.conftest import Trained

Run = Callable[..., Trained]

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"dropout": 0.3, "text": True, "ema": 0.9, "noise_offset": 0.1},
    "dora": {"dora": True, "accumulate": 2, "flip": True},
    "full": {"method": "full", "batch": 2, "text": True},
    "dreambooth": {"method": "dreambooth", "caption": "a red house", "class_prompt": "a house",
                   "class_pictures": 2},
    "embedding": {"method": "embedding", "word": "<new>", "vectors": 2},
    "prodigy": {"optimizer": "prodigy", "lr": None},
    "adamw8bit": {"method": "full", "optimizer": "adamw8bit"},
}  # fmt: skip


PACKAGES = {"prodigy": "prodigyopt", "adamw8bit": "bitsandbytes"}


def state(place: Path) -> dict[str, torch.Tensor]:
    return load_file(next(place.glob("checkpoint-*.safetensors")))


class Interrupts(Silent):
    """Ctrl-C while a step is under way."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: TrainStep, total: int) -> None:
        if step.step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_gone_on_with_is_never_stopped(
    sd: StableDiffusion, data: Path, tmp_path: Path, run: Run, method: str
) -> None:
    """Equal to the bit: weights, optimizer and average, and the file that comes out."""
    if method in PACKAGES:
        pytest.importorskip(PACKAGES[method])
    options = {"steps": 4, "rank": 2, "lr": 1e-2, "grid": 1, "look_every": 99,
               "draw_steps": 1, "prompts": ("a boat",), **METHODS[method]}  # fmt: skip
    whole = run("whole", **options)
    told: list[str] = []
    where = tmp_path / "parts"
    with pytest.raises(Stopped, match="stopped after step 2 of 4, and saved"):
        train(sd, data, Plan(**options), where, name="new", watcher=Interrupts(2))
    assert not (where / whole.path.name).exists()
    path = train(sd, data, Plan(**options), where, name="new", tell=told.append)
    assert any(line.startswith("going on after step 2 of 4") for line in told)
    one, two = state(whole.place), state(where)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    a, b = load_file(whole.path), load_file(path)
    assert all(torch.equal(a[k], b[k]) for k in a)
    logs = [(p / "log.jsonl").read_text().splitlines() for p in (whole.place, where)]
    steps = [[row for line in log if "loss" in (row := json.loads(line))] for log in logs]
    assert steps[0] == steps[1]


def test_going_on_with_more_steps_trains_on(run: Run) -> None:
    """Finished steps are not counted as to be done, and more of them are done."""
    first = run(schedule="constant", warmup=0.0)
    before = load_file(first.path)
    again = run(schedule="constant", warmup=0.0)
    assert any("all 3 steps have been taken already" in line for line in again.told)
    looks = Record.read(again.place / "log.jsonl", 3).looks
    assert [look.step for look in looks] == [0, 3]  # the last one in place of the first run's
    assert all(torch.equal(before[k], v) for k, v in load_file(again.path).items())
    more = run(steps=5, schedule="constant", warmup=0.0)
    after = load_file(more.path)
    assert any(not torch.equal(before[k], after[k]) for k in before)
    straight = load_file(run("straight", steps=5, schedule="constant", warmup=0.0).path)
    assert all(torch.equal(after[k], straight[k]) for k in after)
    path = more.place / "checkpoint-000005.safetensors"
    for count in (-10, 100, 0):
        path.write_bytes(path.read_bytes()[:count])
        with pytest.raises(InputError, match=r"checkpoint-000005.safetensors is "):
            run(steps=5, schedule="constant", warmup=0.0)


@pytest.mark.parametrize("name", ["samples", "class", "latents", "checkpoint-000003", "log.jsonl"])
def test_a_name_of_the_trainings_own_files(run: Run, name: str, tmp_path: Path) -> None:
    """A result called so would lie over its own latents, or be taken for where it stands."""
    with pytest.raises(InputError, match=f"{name} is what a training calls a file of its own"):
        run(name=name)
    assert not (tmp_path / "out").exists()


def test_places_that_are_none(run: Run, data: Path) -> None:
    with pytest.raises(InputError, match="holds the pictures: a training needs an --out of its"):
        run("data")
    with pytest.raises(InputError, match="'a/b' is no name of a result"):
        run(name="a/b")
    assert not (data / "plan.json").exists()


def test_another_training_in_the_folder(run: Run) -> None:
    run()
    with pytest.raises(InputError, match=r"another training \(rank 2, not 3, lr 0.01, not the "):
        run(rank=3, lr=None)


def test_other_data_or_another_model_is_another_training(
    run: Run, data: Path, sd: StableDiffusion
) -> None:
    run()
    other = replace(sd, digests={"unet": "another"})
    with pytest.raises(InputError, match="holds a training of another model: go on"):
        run(networks=other)
    (data / "0.txt").write_text("a green tree")
    with pytest.raises(InputError, match="holds a training of another set of pictures: go on"):
        run()


def test_what_lies_there_afterwards(run: Run) -> None:
    trained = run(steps=4, look_every=2, save_every=3, prompts=("a red boat",))
    names = sorted(str(p.relative_to(trained.place)) for p in trained.place.rglob("*"))
    assert names == [
        "checkpoint-000004.safetensors", "latents.safetensors", "log.jsonl",
        "new-000002.safetensors", "new.safetensors", "plan.json", "report.html", "samples",
        "samples/000000.png", "samples/000002.png", "samples/000004.png",
    ]  # fmt: skip
    sheets = [open_picture(trained.place / f"samples/00000{n}.png") for n in (0, 2, 4)]
    assert len({sheet.tobytes() for sheet in sheets}) == 3
    assert trained.told[0] == (
        "4 pictures, 4 looks an epoch, 4 captions, 0 passed over; sizes: 32x32 (3), 40x24 (1)"
    )
    page = (trained.place / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 + 4  # sheets and charts
    for said in ("The loss on a fixed grid", "What has changed, by noise level", "after step 4"):
        assert said in page
    assert "http" not in page
    looks = [row for line in (trained.place / "log.jsonl").read_text().splitlines()
             if "measured" in (row := json.loads(line))]  # fmt: skip
    assert [look["step"] for look in looks] == [0, 2, 4]
    assert looks[0]["measured"]["change"] == [0, 0]
    assert min(looks[2]["measured"]["change"]) > 0


def test_skipped_pictures_are_told_before_the_first_step(run: Run, data: Path) -> None:
    (data / "broken.png").write_bytes(b"no picture")
    (data / "broken.txt").write_text("a house")
    (data / "1.txt").unlink()
    told = run().told
    assert any("1.png is passed over: has no caption" in line for line in told)
    assert any("broken.png is passed over: is no picture" in line for line in told)
    assert any(
        line.startswith("3 pictures, 3 looks an epoch, 3 captions, 2 passed") for line in told
    )


def test_nothing_to_train_on(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no picture to train on"):
        run(folder=tmp_path / "empty")


@pytest.mark.parametrize(("lr", "what"), [(1e30, "the loss is|the gradient is|not finite")])
def test_a_loss_that_is_no_number(run: Run, tmp_path: Path, lr: float, what: str) -> None:
    """Names picture and noise level; the weights before it are saved."""
    with pytest.raises(InputError, match=what):
        run(steps=50, lr=lr, warmup=0.0, schedule="constant")
    saved = state(tmp_path / "out")
    assert all(t.isfinite().all() for k, t in saved.items() if k.startswith("weight."))


def test_which_picture_and_which_level(sd: StableDiffusion, run: Run, data: Path) -> None:
    """Latents that are no numbers, put into the cache: as a broken VAE would make them."""
    from safetensors.torch import save

    from sdcore.checkpoints.read import read_metadata

    trained = run(steps=1, caption_dropout=0.0)
    cache = trained.place / "latents.safetensors"
    notes, tensors = read_metadata(cache), load_file(cache)
    tensors[f"{data / '3.png'}.mean"].fill_(torch.nan)
    cache.write_bytes(save(tensors, notes))
    with pytest.raises(
        InputError, match=r"the loss is nan at step \d+, of .*3.png at sigma [\d.]+"
    ):
        run(steps=40, caption_dropout=0.0)
    saved = state(trained.place)
    assert all(t.isfinite().all() for t in saved.values())


def test_too_little_memory(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line that says what would help; the steps so far are saved."""
    from sdcore.training.steps import Trainer

    real = Trainer.gradients

    def scarce(self: Trainer, step: int) -> torch.Tensor:
        if step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(self, step)

    def scarce_encode(self: VAE, image: torch.Tensor) -> None:
        raise MemoryError

    monkeypatch.setattr(Trainer, "gradients", scarce)
    with pytest.raises(InputError) as error:
        run(steps=4, batch=2)
    assert "out of memory on cpu at step 3, for 2 pictures of 32x32: take --batch 1" in str(
        error.value
    )
    assert "--checkpointing, --dtype bfloat16, a smaller --resolution" in str(error.value)
    assert (tmp_path / "out" / "checkpoint-000002.safetensors").is_file()
    monkeypatch.setattr(Trainer, "gradients", real)
    monkeypatch.setattr(VAE, "encode", scarce_encode)
    with pytest.raises(InputError, match="out of memory on cpu: take a smaller --resolution than"):
        run("encoding", steps=1)
    monkeypatch.undo()
    whole, straight = run(steps=4, batch=2), run("straight", steps=4, batch=2)
    a, b = load_file(whole.path), load_file(straight.path)
    assert all(torch.equal(a[k], b[k]) for k in a)
