"""Several processes that train together: as one with a larger batch, and stopped together."""

import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from sdcore.checkpoints.read import read_metadata
from sdcore.errors import InputError
from sdcore.pipeline import StableDiffusion
from sdcore.training.plan import Plan
from sdcore.training.ranks import Ranks, ToldByFirst, join
from sdcore.training.train import train
from tests.training.conftest import picture


def of_a_rank(rank: int, port: int, work: Callable[[Ranks], int]) -> None:
    """One of two processes, with the variables that torchrun sets; work gives its exit status."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    ranks, device = join("cpu")
    assert (ranks.rank, ranks.count, device) == (rank, 2, "cpu")
    status = work(ranks)
    ranks.close()
    sys.exit(status)


def free_port() -> int:
    """Below those that the system hands out: no other socket gets it before it is listened to."""
    for port in random.sample(range(20000, 30000), 100):
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def both(work: Callable[[Ranks], int]) -> list[int | None]:
    """The exit statuses of two processes that do this; None of one that hangs."""
    port = free_port()
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=of_a_rank, args=(r, port, work)) for r in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    statuses = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return statuses


def plan_of_ranks(batch: int, data: Path, **options: Any) -> Plan:
    usual = {"steps": 1, "rank": 2, "grid": 1, "draw_steps": 1, "max_grad_norm": 0.0}
    return Plan(**{**usual, "batch": batch, "prompts": ("a boat",), "class_prompt": "a house",
                   "class_dir": str(data), **options})  # fmt: skip


def test_two_processes_are_one_with_the_double_batch(
    sd: StableDiffusion, data: Path, tmp_path: Path
) -> None:
    """By gloo: the gradient of a step, which AdamW's first moment holds a tenth of."""
    picture(3, (32, 32)).save(data / "3.png")

    def work(ranks: Ranks) -> int:
        train(sd, data, plan_of_ranks(1, data), tmp_path / "two", name="new", ranks=ranks)
        return 0

    assert both(work) == [0, 0]
    train(sd, data, plan_of_ranks(2, data), tmp_path / "one", name="new")
    one, two = (load_file(next((tmp_path / n).glob("checkpoint-*"))) for n in ("one", "two"))
    moments = [key for key in one if key.endswith(".exp_avg")]
    largest = max(one[key].abs().max().item() for key in moments)
    assert largest > 0
    assert max((one[k] - two[k]).abs().max().item() for k in moments) < 1e-5 * largest
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == sorted(
        p.name for p in (tmp_path / "one").iterdir()
    )


def statuses_of_errors(train_: Callable[[Ranks], Any]) -> list[int | None]:
    """3 of a process that says what went wrong, 4 of one that knows the first one says it."""

    def work(ranks: Ranks) -> int:
        try:
            train_(ranks)
        except ToldByFirst:
            return 4
        except InputError:
            return 3
        return 0

    return both(work)


def test_a_loss_that_is_no_number_stops_all(
    sd: StableDiffusion, data: Path, tmp_path: Path
) -> None:
    """Of a picture that one of them looks at: none waits, one of them speaks, the steps before it
    are kept."""
    picture(3, (32, 32)).save(data / "3.png")
    plan = plan_of_ranks(1, data, steps=20, class_prompt=None, class_dir=None, caption_dropout=0.0,
                         save_every=100)  # fmt: skip
    out = tmp_path / "two"
    first = replace(plan, steps=1)
    train_ = partial(train, sd, data, out=out, name="new")
    assert statuses_of_errors(lambda ranks: train_(first, ranks=ranks)) == [0, 0]
    cache = out / "latents.safetensors"
    notes, tensors = read_metadata(cache), load_file(cache)
    tensors[f"{data / '3.png'}.mean"].fill_(torch.nan)
    cache.write_bytes(save(tensors, notes))
    assert statuses_of_errors(lambda ranks: train_(plan, ranks=ranks)) == [3, 4]
    (kept,) = out.glob("checkpoint-*")
    assert all(t.isfinite().all() for t in load_file(kept).values())


def test_what_the_first_cannot_write_stops_all(
    sd: StableDiffusion, data: Path, tmp_path: Path
) -> None:
    """A checkpoint that cannot be saved, by the process that saves."""
    out = tmp_path / "two"

    def work(ranks: Ranks) -> None:
        import sdcore.training.session as session

        def full(*_: object) -> None:
            raise InputError("no space left")

        session.save_checkpoint = full  # type: ignore[assignment]
        train(sd, data, plan_of_ranks(1, data), out, name="new", ranks=ranks)

    assert statuses_of_errors(work) == [3, 4]


@pytest.mark.slow
def test_torchrun_itself(tiny_path: Path, data: Path, tmp_path: Path) -> None:
    """The command under torchrun: the losses of one process with the double batch, and one line of
    one process where something is wrong."""
    picture(3, (32, 32)).save(data / "3.png")
    options = ["--model", str(tiny_path), "--device", "cpu", "--steps", "3", "--rank", "2",
               "--grid", "1", "--draw-steps", "1", "--prompt", "a boat",
               "--name", "new"]  # fmt: skip
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]

    def ran(how: list[str], out: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *how, "-m", "sdcore", "train", str(data), "--out",
                   str(tmp_path / out), *options, *more]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=300,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip

    two, one = ran(torchrun, "two"), ran([], "one", "--batch", "2")
    assert (two.returncode, one.returncode) == (0, 0), two.stderr + one.stderr
    assert two.stdout.strip() == str(tmp_path / "two" / "new.safetensors")
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("two", "one")]
    losses = [[row["loss"] for line in log if "loss" in (row := json.loads(line))] for log in logs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    wrong = ran(torchrun, "two", "--alpha", "7")
    assert wrong.returncode == 1  # torchrun's own, for any that fails
    assert wrong.stderr.count("holds another training") == 1
