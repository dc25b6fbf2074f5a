"""The queue and the thread behind it, without pictures."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sdcore.errors import InputError
from sdcore.server.jobs import CANCELLED, DONE, FAILED, Job
from sdcore.server.limits import Limits
from sdcore.server.models import Choice, Models
from sdcore.server.refusals import Full, Missing, Unready
from sdcore.server.worker import Worker


class NoModels(Models):
    """Names, and nothing behind them."""

    def __init__(self) -> None:
        super().__init__({"none": "nowhere"})

    def networks(self, choice: Any, tell: Any = None) -> Any:
        return None

    def peek(self, name: str) -> Any:
        return object()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(NoModels(), Limits(work=10, jobs=3, kept=1000, seconds=60))
    worker.start()
    yield worker
    worker.stop()


def held(worker: Worker) -> tuple[Job, threading.Event]:
    """A job that takes steps until it is let go."""
    go = threading.Event()

    def work(networks: Any, jobs: Sequence[Job]) -> None:
        while not go.wait(0.005):
            jobs[0].check()
        jobs[0].result = "done"

    job = worker.submit(work, cost=5)
    while job.state == "queued":
        time.sleep(0.001)
    return job, go


def done(networks: Any, jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.result = job.id


def test_jobs_are_done_in_order_and_say_so(worker: Worker) -> None:
    first, go = held(worker)
    second, third = worker.submit(done), worker.submit(done)
    assert [worker.position(job) for job in (first, second, third)] == [0, 1, 2]
    go.set()
    assert all(job.wait(60) for job in (first, second, third))
    assert [job.result for job in (first, second)] == ["done", second.id]
    assert [event.kind for event in second.events] == ["running", "done"]
    assert second.created <= second.started <= second.ended <= third.ended  # type: ignore


def test_a_full_queue_is_told_at_once_with_the_time_to_wait(worker: Worker) -> None:
    first, go = held(worker)
    worker.submit(done, cost=5)
    with pytest.raises(Full, match="queue is full: 10 of 10") as caught:
        worker.submit(done, cost=0.5)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1
    go.set()
    assert first.wait(60)


def test_one_job_is_taken_by_an_empty_queue_however_large_it_is(worker: Worker) -> None:
    assert worker.submit(done, cost=1000).wait(60)


def test_what_waits_is_cancelled_at_once_and_what_runs_between_two_steps(worker: Worker) -> None:
    first, _ = held(worker)
    second = worker.submit(done, cost=5)
    assert worker.cancel(second)
    assert second.state == CANCELLED
    assert worker.load == 5  # its work is free again
    assert worker.cancel(first)
    assert first.wait(60)
    assert first.state == CANCELLED
    assert not worker.cancel(first)  # it has ended, and nobody else's run is meant
    assert first.result is None


def test_a_job_that_fails_leaves_the_next_unharmed(worker: Worker) -> None:
    def broken(networks: Any, jobs: Sequence[Job]) -> None:
        raise ZeroDivisionError("a secret prompt")

    def refused(networks: Any, jobs: Sequence[Job]) -> None:
        raise InputError("steps 0 is out of range")

    jobs = [worker.submit(work) for work in (broken, refused, done)]
    assert all(job.wait(60) for job in jobs)
    assert [job.state for job in jobs] == [FAILED, FAILED, DONE]
    assert "ZeroDivisionError" in str(jobs[0].error)
    assert "secret" not in str(jobs[0].error)
    assert str(jobs[1].error) == "steps 0 is out of range"


def test_short_work_is_done_between_the_steps_of_a_run(worker: Worker) -> None:
    first, go = held(worker)
    short = worker.submit(done, between_steps=True)
    assert short.wait(60)
    assert short.result == short.id
    assert first.state == "running"
    go.set()
    assert first.wait(60)
    assert first.result == "done"


def test_jobs_of_one_key_are_done_at_once_up_to_the_batch() -> None:
    worker = Worker(NoModels(), Limits(batch=4))
    seen: list[int] = []

    def work(networks: Any, jobs: Sequence[Job]) -> None:
        seen.append(len(jobs))
        done(networks, jobs)

    jobs = [worker.submit(work, key=key, pictures=n) for key, n in
            (("a", 2), ("b", 1), ("a", 1), (None, 1), ("a", 2), (None, 1))]  # fmt: skip
    worker.start()
    assert all(job.wait(60) and job.result == job.id for job in jobs)
    assert seen == [2, 1, 1, 1, 1]  # of key "a": 2 + 1 pictures, and 2 by themselves
    assert worker.stop()


def test_old_jobs_are_forgotten_by_number_by_size_and_on_demand(worker: Worker) -> None:
    jobs = [worker.submit(done) for _ in range(5)]
    assert jobs[-1].wait(60)
    assert worker.jobs == jobs[2:]
    with pytest.raises(Missing):
        worker.find(jobs[0].id)
    jobs[3].size = 2000
    assert worker.jobs == jobs[4:]
    worker.forget(jobs[4])
    assert worker.jobs == []


def test_pictures_of_what_waits_are_bounded_and_one_is_counted_once(worker: Worker) -> None:
    first, go = held(worker)
    worker.submit(done, given={1: 600})
    worker.submit(done, given={1: 600})  # the same picture
    with pytest.raises(Full, match="pictures of what waits"):
        worker.submit(done, given={2: 600})
    last = worker.submit(done)
    go.set()
    assert first.wait(60)
    assert last.wait(60)
    assert worker.submit(done, given={2: 600}).wait(60)
    assert sum(sum(job.given.values()) for job in worker.jobs) <= 1000


def test_old_jobs_are_forgotten_by_time() -> None:
    worker = Worker(NoModels(), Limits(seconds=0))
    worker.start()
    job = worker.submit(done)
    assert job.wait(60)
    time.sleep(0.01)
    assert worker.jobs == []
    assert worker.stop()


def test_an_end_lets_the_running_job_finish_within_the_grace(worker: Worker) -> None:
    first, go = held(worker)
    threading.Timer(0.05, go.set).start()
    assert worker.stop(grace=60)
    assert first.state == DONE
    with pytest.raises(Unready):
        worker.submit(done)


def test_an_end_cancels_what_is_not_done_in_time(worker: Worker) -> None:
    first, _ = held(worker)
    second = worker.submit(done)
    assert worker.stop(grace=0.02)
    assert [first.state, second.state] == [CANCELLED, CANCELLED]


def test_who_follows_a_job_gets_every_event_once_also_the_old_ones(worker: Worker) -> None:
    def telling(networks: Any, jobs: Sequence[Job]) -> None:
        for n in range(50):
            jobs[0].tell("step", index=n)

    async def followed() -> list[tuple[int, str]]:
        job = worker.submit(telling)
        told = [(event.id, event.kind) async for event in job.follow()]
        assert [(event.id, event.kind) async for event in job.follow(after=40)] == told[40:]
        return told

    told = asyncio.run(followed())
    assert told == list(enumerate(["running", *["step"] * 50, "done"], start=1))


def test_who_followed_is_gone_with_its_loop() -> None:
    """Also just as it is to be woken."""
    job, woken = Job(Choice("none"), cost=0), []

    async def begun() -> None:
        following = job.follow()
        job.tell("note")
        await anext(following)
        woken.extend(job._listeners)

    asyncio.run(begun())
    assert len(woken) == 1
    woken[0]()
