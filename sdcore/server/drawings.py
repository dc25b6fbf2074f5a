"""What most jobs are: pictures, drawn as the command line draws them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from sdcore.answering import over_parts
from sdcore.complete import complete
from sdcore.drawing import Drawn, draw
from sdcore.enduring import Enduring, OutOfMemory
from sdcore.hires import larger, size_of
from sdcore.networks import Networks
from sdcore.request import Parts, parts_of
from sdcore.run import Run
from sdcore.sampling import Denoise, Prediction, State, Step
from sdcore.schedulers import Plan
from sdcore.schedulers.rehearsal import rehearse
from sdcore.server.asked import Asked, bytes_of_pictures, lean
from sdcore.server.jobs import AGAIN, Cancelled, Job
from sdcore.server.limits import MEGA, Limits
from sdcore.server.refusals import Refused
from sdcore.server.worker import Worker
from sdcore.settings import Settings
from sdcore.starting import first_step

# Gets the job, the run as it is now, its step, and which of its rows are the job's.
OnStep = Callable[[Job, Run, Step, slice], None]
Check = Callable[[Settings], None]  # raises InputError for what could be drawn, but not answered


@dataclass(frozen=True)
class Begun:
    """Where a picture stands already, and what is left of it goes on from.

    sigmas: those in which `state` counts. left: the completed settings of what is left -> those
    that the picture is to have, and whether it goes on in `sigmas` (else in its own below them).
    """

    state: State
    sigmas: tuple[float, ...]
    left: Callable[[Settings], tuple[Settings, bool]]


@dataclass(frozen=True)
class Drawing:
    """The task of such a job."""

    asked: Asked
    on_step: OnStep | None = None
    api: str = "native"  # the face that it came by
    begun: Begun | None = None  # of one picture
    check: Check | None = None


def submit(
    worker: Worker,
    asked: Asked,
    on_step: OnStep | None = None,
    api: str = "native",
    begun: Begun | None = None,
    check: Check | None = None,
) -> Job:
    """Queue the pictures; the job's result is a list of `Drawn`.

    What is wrong is told at once where the model is in memory, else by the job. Its events are
    "note" (line), "step" (picture, pictures, index and count in its pass, done and total over both,
    sigma, sigma_next, t, nfe, seconds, batch), "picture" (picture) and "again" (the steps told of
    the picture are void: it is drawn anew). on_step: called in the
    worker's thread, which waits for it. check: called with the settings of every picture before any
    is drawn.

    Raises Refused, InputError.
    """
    cost, key = _estimated(asked), None
    networks = worker.models.peek(asked.choice.model)
    refiner = None if asked.refiner is None else worker.models.peek(asked.refiner)
    if networks is not None and (asked.refiner is None or refiner is not None):
        settings, parts = completed(asked, networks, worker.limits, refiner)
        _checked(check, settings)
        cost = work_of(settings, parts, networks, worker.limits)
        asked = lean(asked, settings[0], parts.canvas)
        if parts.canvas is None and parts.refiner is None and begun is None:
            key = (asked.choice, asked.smaller, _shared(settings[0]))
    check_work(cost, worker.limits)
    return worker.submit(
        lambda networks, jobs: _draw(worker, networks, jobs),
        asked.choice,
        cost,
        key,
        asked.pictures,
        Drawing(asked, on_step, api, begun, check),
        given=bytes_of_pictures(asked),
    )


def _checked(check: Check | None, settings: Sequence[Settings]) -> None:
    if check is not None:
        for each in settings:
            check(each)


def work_of(
    settings: Sequence[Settings], parts: Parts, networks: Networks, limits: Limits
) -> float:
    """As `Limits` counts it, by a rehearsal of the run, its second pass included."""
    return sum(
        len(settings) * each.width * each.height * sum(step.nfe for step in steps) / MEGA
        for each, _, steps in passes(settings, parts, networks, limits)
    )


def passes(
    settings: Sequence[Settings], parts: Parts, networks: Networks, limits: Limits
) -> Iterator[tuple[Settings, Plan, list[Step]]]:
    """The first picture's settings in each pass, the plan, and the steps that will run of it.

    Raises TooMany.
    """
    first = settings[0]
    plan, solver = parts.scheduler.plan(first.steps), parts.scheduler.solver
    index, sigmas = first_step(first, plan.sigmas)
    start = State(torch.zeros(1, 1, 1, 1), index)
    branches = over_parts(parts.guidance, settings).branches
    yield first, plan, list(rehearse(solver, sigmas, start, branches, limits.questions))
    if parts.second is not None:
        large = [larger(each, networks.vae.config.factor) for each in settings]
        yield from passes(large, parts.second, networks, limits)


def _estimated(asked: Asked) -> float:
    """Of a model that is not in memory: what is not said as SD 1.5 has it."""
    request = asked.request
    width, height, steps = (
        usual if value is None else value
        for value, usual in ((request.width, 512), (request.height, 512), (request.steps, 20))
    )
    return asked.pictures * width * height * steps * 2 / MEGA


def check_work(cost: float, limits: Limits) -> None:
    if cost > limits.work:
        raise Refused(
            f"it takes {cost:.0f} million pixel evaluations, and the server does {limits.work:.0f} "
            "at most: ask for fewer or smaller pictures, or fewer steps"
        )


def completed(
    asked: Asked, networks: Networks, limits: Limits, refiner: Networks | None
) -> tuple[tuple[Settings, ...], Parts]:
    """What a request comes to with its networks. Raises Refused, InputError."""
    request = asked.request if refiner is None else replace(asked.request, refiner=refiner)
    parts = parts_of(request, networks)
    settings = complete(request, networks, parts)
    first = settings[0]
    width, height = size_of(first, networks.vae.config.factor)
    steps = max(first.steps, first.hires_steps or 0)
    for name, value, most in (
        ("width", width, limits.side),
        ("height", height, limits.side),
        ("steps", steps, limits.steps),
    ):
        if value > most:
            raise Refused(f"{name} {value} is out of range: up to {most}", param=name)
    return settings, parts


def _shared(settings: Settings) -> Settings:
    return replace(settings, prompt="", negative=None, seed=0)


def _draw(worker: Worker, networks: Networks, jobs: Sequence[Job]) -> None:
    """Every picture of the jobs, in batches; each job gets its own."""
    tasks: list[Drawing] = [job.task for job in jobs]
    refiners = [worker.models.refiner(task.asked.refiner, jobs[0].choice) for task in tasks]
    each, parts = zip(
        *(completed(task.asked, networks, worker.limits, refiner)
          for task, refiner in zip(tasks, refiners, strict=True)),
        strict=True,
    )  # fmt: skip
    for job, settings, of in zip(jobs, each, parts, strict=True):
        _checked(job.task.check, settings)
        check_work(work_of(settings, of, networks, worker.limits), worker.limits)
        small = lean(job.task.asked, settings[0], of.canvas)
        job.task, job.given = replace(job.task, asked=small), bytes_of_pictures(small)
    wanted = [settings for of in each for settings in of]
    start: State | None = None
    sigmas: tuple[float, ...] = ()
    if (begun := tasks[0].begun) is not None:  # such a job is alone
        left, same = begun.left(wanted[0])
        wanted, start, sigmas = [left], begun.state, begun.sigmas if same else ()
    watching = _Watching(jobs, [job for job, of in zip(jobs, each, strict=True) for _ in of])
    watching.most = worker.limits.work * MEGA / networks.vae.config.factor**2
    try:
        _in_batches(worker, networks, jobs, wanted, parts[0], watching, start, sigmas)
    finally:
        watching.let_go()


def _in_batches(
    worker: Worker,
    networks: Networks,
    jobs: Sequence[Job],
    wanted: Sequence[Settings],
    parts: Parts,
    watching: _Watching,
    start: State | None,
    sigmas: Sequence[float],
) -> None:
    """The pictures, in smaller batches where memory runs out. Raises OutOfMemory."""
    batch, done = max(1, worker.limits.batch), watching.done
    smaller = all(job.task.asked.smaller for job in jobs)
    while len(done) < len(wanted):
        try:
            for drawn in draw(
                networks,
                wanted[len(done) :],
                parts,
                batch=batch,
                start=start,
                sigmas=sigmas,
                smaller=smaller and batch == 1,
                watch=watching,
                tell=watching.tell,
                around=watching.around,
                filters=worker.filters,
            ):
                networks = replace(networks, memory=drawn.settings.memory)
                watching.add(drawn)
        except OutOfMemory as error:
            if batch == 1:
                worker.models.settle(jobs[0].choice, error.networks)
                raise
            networks, batch = error.networks, batch // 2
            watching.tell(f"out of memory; going on with batches of {batch}")
    worker.models.settle(jobs[0].choice, networks)


class _Watching:
    """What happens between two steps: events, and whether to go on."""

    def __init__(self, jobs: Sequence[Job], owners: Sequence[Job]) -> None:
        self.jobs, self.owners = jobs, owners  # owners: of each picture
        self.done: list[Drawn] = []
        self.most, self.asked = float("inf"), 0.0  # latent pixels times evaluations
        self.steps, self.total = 0, 0  # of the pictures that are drawn now, over both passes
        self.drawing: Enduring | None = None  # what draws them
        self.begun = time.monotonic()

    def let_go(self) -> None:
        """Of all that it watched: a run knows it by `around`, and would be kept in a circle until
        the next great collection of garbage, with megabytes of tensors."""
        self.jobs, self.owners, self.done, self.drawing = [], [], [], None

    def tell(self, line: str) -> None:
        for job in self.jobs:
            job.tell("note", line=line)

    def add(self, drawn: Drawn) -> None:
        owner = self.owners[len(self.done)]
        self.done.append(drawn)
        self.steps = 0
        owner.tell("picture", picture=self._index(len(self.done) - 1))
        if len(self.done) >= max(n for n, of in enumerate(self.owners, 1) if of is owner):
            owner.result = [d for d, of in zip(self.done, self.owners) if of is owner]  # noqa: B905
            owner.size += sum(3 * d.size[0] * d.size[1] for d in owner.result)
        self.begun = time.monotonic()

    def _index(self, row: int) -> int:
        """Which of its job's pictures that is."""
        return sum(each is self.owners[row] for each in self.owners[:row])

    def check(self) -> None:
        """Raises Cancelled where nobody wants what is drawn."""
        self.jobs[0].pause()
        if all(job.cancelled for job in self.jobs):
            raise Cancelled

    def around(self, denoise: Denoise) -> Denoise:
        """Also between the questions of one step, which an adaptive solver may have many of."""

        def asked(x: Any, sigma: float) -> Prediction:
            if all(job.cancelled for job in self.jobs):
                raise Cancelled
            answer = denoise(x, sigma)
            pixels = len(x) * x.shape[-2] * x.shape[-1]  # of latents
            self.asked += pixels * max(1, len(answer.branches))
            if self.asked > self.most:
                raise Refused("the scheduler asks the network more often than the server allows")
            return answer

        return asked

    def __call__(self, enduring: Enduring, step: Step) -> None:
        now = time.monotonic()
        seconds, self.begun = now - self.begun, now
        begin, run = len(self.done), enduring.run
        owners = self.owners[begin : begin + len(run.settings)]
        if enduring is not self.drawing:
            for job in dict.fromkeys(owners) if self.steps else ():
                job.tell(AGAIN)
            self.drawing, self.steps, self.total = enduring, 0, len(run)
        self.steps += 1
        for job in dict.fromkeys(owners):
            rows = [row for row, owner in enumerate(owners) if owner is job]
            job.tell(
                "step",
                picture=self._index(begin + rows[0]),
                pictures=len(rows),
                index=step.index,
                count=step.count,
                done=min(self.steps, self.total),
                total=self.total,
                sigma=step.sigma,
                sigma_next=step.sigma_next,
                t=step.t,
                nfe=step.nfe,
                seconds=seconds,
                batch=len(owners),
            )
            if job.task.on_step is not None and not job.cancelled:
                job.task.on_step(job, run, step, slice(rows[0], rows[-1] + 1))
        self.check()
        self.begun = time.monotonic()
