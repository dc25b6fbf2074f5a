"""`python -m scripts.train --seconds`: fresh pictures, a loop by the clock, LoRAs, twins."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn

import sdcore
from scripts.train import minutes
from scripts.train.__main__ import main
from scripts.train.lowrank import LowRank
from scripts.train.sprint import Sprint, lowered, sprint
from scripts.train.stream import CAPTIONS, Pool, description, lessons
from scripts.train.words import answers
from scripts.train.world import HELD_OUT
from sdcore.adapters import adapted, open_lora

MODEL = Path(__file__).parents[2] / "weights" / "picturebook"
TOKENIZER = str(MODEL / "tokenizer" / "tokenizer.json")
CPU = torch.device("cpu")


def test_lessons_are_half_of_two_things_and_never_of_held_out_pairs() -> None:
    shown = [description(7, i) for i in range(200)]
    assert [len(d.things) for d in shown] == [1, 2] * 100
    assert not {(t.object, t.colour) for d in shown for t in d.things} & set(HELD_OUT)


def test_a_lesson_depends_on_its_number_only() -> None:
    whole, part = lessons(TOKENIZER, 7, 0, 4), lessons(TOKENIZER, 7, 2, 2)
    assert np.array_equal(whole.pixels[2:], part.pixels)
    assert np.array_equal(whole.ids[2:], part.ids)
    assert whole.ids.shape == (4, CAPTIONS, 77)
    assert whole.answers.tolist() == [answers(description(7, i)) for i in range(4)]


def test_a_pool_keeps_what_it_has_room_for_and_draws_from_that() -> None:
    sd = sdcore.load(str(MODEL), device="cpu")
    pool, new = Pool(5, sd.vae, CPU), lessons(TOKENIZER, 7, 0, 3)
    pool.add(new)
    assert (pool.size, pool.count.item()) == (3, 3)
    pool.add(new)
    assert (pool.size, pool.count.item()) == (5, 5)
    assert pool.mean.float().std() > 0.5  # unit variance, roughly
    x0, ids, facts = pool.draw(64)
    assert x0.shape == (64, 4, 16, 16)
    known = {tuple(row) for row in new.answers.tolist()}
    assert {tuple(row) for row in facts.tolist()} == known
    assert {tuple(row) for row in ids.tolist()} <= {
        tuple(row) for row in new.ids.reshape(-1, 77).tolist()
    }


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)

    def loss(self) -> torch.Tensor:
        x = torch.randn(16, 3)
        return (self.layer(x) - x.sum(1, keepdim=True)).square().mean()


def test_a_sprint_learns_and_stops_by_the_clock() -> None:
    line, ticks = Line(), itertools.count()
    before, looks = line.loss().item(), list[int]()
    plan = Sprint(seconds=400.0, lr=0.05, warmup=5, ema=0.9)
    clock = lambda: float(next(ticks))  # noqa: E731  # a second for each look at it
    sprint("line", line, line.loss, plan, between=lambda: looks.append(1), clock=clock)
    assert looks
    assert 400 < next(ticks) < 440
    assert line.loss().item() < before / 10


def test_a_sprint_that_goes_wrong_ends_with_what_was_good() -> None:
    line, count = Line(), 0

    def loss() -> torch.Tensor:
        nonlocal count
        count += 1
        return line.loss() * (float("nan") if count > 60 else 1.0)

    sprint("line", line, loss, Sprint(seconds=60.0, lr=0.01, warmup=5, ema=0.9))
    assert count == 75
    assert line.layer.weight.isfinite().all()
    assert not torch.equal(line.layer.weight, Line().layer.weight)


def test_what_is_saved_on_the_way_is_the_average() -> None:
    line, seen = Line(), list[bool]()
    start = line.layer.weight.detach().clone()
    plan = Sprint(seconds=1.0, lr=0.05, warmup=5, ema=1.0)  # an average that never moves
    sprint(
        "line",
        line,
        line.loss,
        plan,
        save=lambda: seen.append(torch.equal(line.layer.weight, start)),
        save_every=0.0,
    )
    assert seen
    assert all(seen)


def test_a_low_rank_difference_is_read_as_a_lora(tmp_path: Path) -> None:
    unet = sdcore.load(str(MODEL), device="cpu", dtype="float32").unet
    change = LowRank(unet, rank=2)
    assert all(torch.equal(w, change.frozen[name]) for name, w in change.weights().items())
    with torch.no_grad():
        for up in change.up:
            up.normal_(std=0.05)
    change.write(tmp_path / "change.safetensors")
    lora = open_lora(tmp_path / "change.safetensors", {"unet": unet})
    assert not lora.unmatched
    assert len(lora.layers) == len(change.layers)
    x, t, context = torch.randn(1, 4, 16, 16), torch.tensor([500.0]), torch.randn(1, 77, 128)
    with torch.no_grad():
        wanted = torch.func.functional_call(unet, change.weights(), (x, t, context))
        read = adapted("unet", unet, [lora])(x, t, context)
        assert (wanted - unet(x, t, context)).abs().max() > 0.1
    assert (wanted - read).abs().max() < 5e-3  # float16 in the file


TASKS = {
    "eps": minutes.diffusion("epsilon", CPU),
    "v": minutes.diffusion("v_prediction", CPU),
    "flow": minutes.flow(),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_tells_the_time_of_its_own_process(name: str) -> None:
    task = TASKS[name]
    sigma, t = task.levels((torch.arange(8) + 0.5) / 8)
    for one, time_of_it in zip(sigma.tolist(), t.tolist(), strict=True):
        assert task.process.clock.timestep(one) == pytest.approx(time_of_it, rel=1e-5)
    assert task.weight(sigma**-2).isfinite().all()


def test_the_twins_see_nearly_pure_noise_and_weigh_it_as_much_as_x0() -> None:
    for name, end, latest in (("v", 0.9999, 999), ("flow", 0.0, 999.9)):
        sigma, t = TASKS[name].levels(torch.tensor([end]))
        assert t.item() == pytest.approx(latest)
        assert sigma.item() > 4000
        assert TASKS[name].weight(sigma**-2).item() == pytest.approx(1, abs=1e-3)


def test_lowered_has_the_gradients_of_the_network_itself() -> None:
    line, x = Line(), torch.randn(4, 3)
    lowered(line.layer, None, x).float().sum().backward()
    assert line.layer.weight.grad is not None
    assert line.layer.weight.dtype == torch.float32
    assert (line.layer.weight.grad - x.sum(0)).abs().max() < 0.05  # bfloat16 where it is fast


def test_all_of_it(tmp_path: Path) -> None:
    options = ["--quick", "--start", str(MODEL), "--device", "cpu", "--seconds", "4"]
    done = CliRunner().invoke(main, [*options, "--out", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    sd = sdcore.load(tmp_path / "new", device="cpu")
    for name in ("few-steps", "v", "flow"):
        path = tmp_path / f"new-{name}.safetensors"
        assert not open_lora(path, {"unet": sd.unet}).unmatched
    old = load_file(MODEL / "vae" / "diffusion_pytorch_model.safetensors")
    new = load_file(tmp_path / "new" / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(new[key], value) for key, value in old.items())
    refused = CliRunner().invoke(main, ["--seconds", "4", "--out", str(tmp_path / "no")])
    assert refused.exit_code == 2
    assert "--start" in refused.output
