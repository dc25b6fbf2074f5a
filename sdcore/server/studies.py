"""Runs whose steps are kept: to look at, to go on from, to set beside each other.

A study is one picture. What it keeps stays in its job until that is forgotten, the oldest first
(`Limits.kept`); a branch holds the state that it began with, so it outlives the run it came from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor

from sdcore.branching import fixed, gone_on
from sdcore.errors import unknown
from sdcore.picture_options import OPTIONS, Options, Source
from sdcore.recipes import Leg
from sdcore.run import Run
from sdcore.sampling import Prediction, State, Step
from sdcore.server import asked as requests
from sdcore.server.asked import Asked
from sdcore.server.drawings import Begun, submit
from sdcore.server.jobs import Job
from sdcore.server.refusals import Missing, Refused
from sdcore.server.worker import Worker
from sdcore.settings import Settings, inherited, same_schedule
from sdcore.trajectory.geometry import rms

KEPT = "study"  # where a job holds it
REFERENCE = "heun"  # of what solvers are measured by: second order, and no memory to start up
FINE = 60  # steps of a reference, at least
VIEWS = ("x", "x0", "eps", "difference")


@dataclass(frozen=True)
class Kept:
    """A step, as it is kept. Tensors: [1,C,h,w], on the CPU."""

    number: int  # in its run, from 0
    step: Step
    seconds: float
    difference: Tensor | None  # between the branches' eps, where there are two at least
    sigmas: tuple[float, ...]  # in which it counts: those of its pass

    def view(self, name: str) -> Tensor | None:
        """x, x0, eps or the branches' difference."""
        if name == "difference":
            return self.difference
        return self.step.x if name == "x" else getattr(self.step.prediction, name)

    @property
    def tensors(self) -> list[Tensor]:
        """All that it holds on to."""
        step = self.step
        held = [step.x, step.x_next, step.prediction.x0, step.prediction.eps, self.difference]
        return [each for each in (*held, *(m.value for m in step.memory)) if each is not None]


@dataclass(frozen=True)
class Origin:
    """What a study goes on from: so many steps of another one, under these changes."""

    run: str  # its job's id
    steps: int  # that were taken of it
    state: State
    sigmas: tuple[float, ...]
    settings: Settings  # of those steps
    legs: tuple[Leg, ...]  # the way down to there
    changes: Mapping[str, Any]  # as they were asked for


@dataclass(eq=False)
class Study:
    """One picture on its way, every step of it kept. The worker's thread writes."""

    asked: Asked
    origin: Origin | None = None
    reference_of: str | None = None  # the run that it is the reference of
    settings: Settings | None = None  # once it has begun
    same_sigmas: bool = False
    steps: list[Kept] = field(default_factory=list)
    nfe: int = 0
    held: int = 0  # bytes of the steps

    def keep(self, job: Job, run: Run, step: Step, rows: slice) -> None:
        """Called in every step."""
        self.settings = run.settings[rows.start]
        self.asked = job.task.asked  # with smaller pictures, perhaps
        told = next(e.data for e in reversed(job.events) if e.kind == "step")
        if told["done"] == 1 and self.steps:  # it is drawn anew
            job.size, self.steps, self.nfe, self.held = job.size - self.held, [], 0, 0
        apart = difference(step.prediction, rows)
        kept = Kept(len(self.steps), _small(step, rows), told["seconds"], apart, run.sigmas)
        seen = {t.data_ptr() for before in self.steps[-4:] for t in before.tensors}
        more = {t.data_ptr(): t.nbytes for t in kept.tensors if t.data_ptr() not in seen}
        self.held += sum(more.values())
        job.size += sum(more.values())
        self.steps.append(kept)
        self.nfe += step.nfe
        job.tell("kept", number=kept.number)

    def at(self, number: int) -> Kept:
        """The step of this number, from 0. Raises Missing."""
        if not 0 <= number < len(self.steps):
            raise Missing(f"there is no step {number}: 0 to {len(self.steps) - 1}")
        return self.steps[number]

    @property
    def said(self) -> frozenset[str]:
        """The names of the options that were asked for, of the models' too."""
        if self.origin is not None:
            return frozenset(self.origin.changes) & OPTIONS.keys()
        request = {f.name for f in fields(Options) if getattr(self.asked.request, f.name) not in
                   (None, ())}  # fmt: skip
        overlays = {"loras": self.asked.choice.loras, "embeddings": self.asked.choice.embeddings}
        return frozenset(request | {name for name, value in overlays.items() if value})

    def legs(self, source: Mapping[str, Any], stop_after: int | None = None) -> tuple[Leg, ...]:
        """The way down, for `sdcore.recipes`. source: how the server loads its models."""
        if self.settings is None or self.reference_of is not None:
            return ()
        said = self.said | (frozenset(source) & {f.name for f in fields(Source)})
        before = () if self.origin is None else self.origin.legs
        return (*before, Leg(self.settings, said, stop_after, self.same_sigmas))


def study_of(job: Job) -> Study:
    """Raises Missing for a job that is none."""
    study = job.kept.get(KEPT)
    if study is None:
        raise Missing("no such run, or it was forgotten")
    return study


def begin(worker: Worker, given: Mapping[str, Any]) -> Job:
    """A study of a request in sdcore's own words (`asked.read`). Raises Refused, InputError."""
    asked = requests.read(given, worker.models, worker.limits)
    check_one(asked)
    return _submitted(worker, Study(asked))


def check_one(asked: Asked) -> None:
    """Raises Refused for several pictures."""
    if asked.pictures != 1:
        raise Refused("a run is one picture: ask once for each", param="seed")


def branch(worker: Worker, job: Job, steps: Any, changes: Any) -> Job:
    """Another end of a run: from after so many of its steps, under other settings.

    changes: in the words of a request, but for what a run begins with (the model, the size, the
    picture that it starts from); {}: none, and the picture is equal to the bit.

    Raises Refused, InputError.
    """
    study = study_of(job)
    if not isinstance(changes, dict) or isinstance(steps, bool) or not isinstance(steps, int):
        raise Refused("a branch is {steps: how many are taken over, changes: {name: value}}")
    if not 1 <= steps <= len(study.steps) or study.settings is None:
        raise Refused(f"a branch takes over 1 to {len(study.steps)} steps", param="steps")
    changes = {name: value for name, value in changes.items() if value is not None}
    for name in {"loras", "embeddings", *fixed()} & changes.keys():
        raise Refused(f"{name} is what the run began with: it cannot be changed", param=name)
    for name in changes.keys() - {*OPTIONS, "prompt", "negative", "seed"}:
        raise unknown("change", name, sorted({*OPTIONS, "prompt", "seed"} - fixed()))
    old, last = study.settings, study.at(steps - 1)
    _check_one_pass(old)
    if last.step.index + 1 >= last.step.count:  # of its schedule, which may end above sigma 0
        raise Refused("nothing is left below that step: take over fewer", param="steps")
    words = {"prompt": old.prompt, "seed": old.seed, **changes}
    asked = requests.read(words, worker.models, worker.limits)
    check_one(asked)
    if asked.choice.loras:
        raise Refused("a prompt names an adapter: the run began with its own", param="prompt")
    read = asked.request
    options = {f.name: getattr(read, f.name) for f in fields(Options)}
    over = {name: value for name, value in inherited(vars(old), options).items()
            if name in options}  # fmt: skip
    before = study.asked.request
    request = replace(
        read,
        negative=read.negative if "negative" in changes else before.negative,
        **over | {name: getattr(before, name) for name in ("image", "mask", "latents", "refiner")},
    )
    origin = Origin(
        job.id, steps, last.step.state, last.sigmas, old,
        study.legs(worker.models.source, stop_after=steps), changes,
    )  # fmt: skip
    return _submitted(worker, Study(replace(study.asked, request=request), origin))


def reference(worker: Worker, job: Job) -> Job:
    """The curve that a run would follow in steps that are small: from the same x, through all of
    its sigmas, by Heun's method in parts of each of its steps.

    Raises Refused for a run that has not begun, and where even two parts are too many steps.
    """
    study = study_of(job)
    if study.settings is None or not study.steps:
        raise Refused("a reference is for a run that has begun")
    _check_one_pass(study.settings)
    own = [each.step.sigma for each in study.steps] + [study.steps[-1].step.sigma_next]
    count = len(own) - 1
    parts = min(max(2, math.ceil(FINE / count)), (worker.limits.steps - 1) // count)
    if parts < 2:
        raise Refused(f"the reference of {count} steps takes more than {worker.limits.steps}")
    sigmas = _finer(own, parts)
    request = replace(
        study.asked.request, scheduler=REFERENCE, steps=None, eta=None, tail=None, noise=None,
        spacing="sigmas:" + ",".join(map(repr, sigmas)), seeds=(study.settings.seed,),
        strength=None, start_sigma=None, start_step=None,
    )  # fmt: skip
    finer = Study(replace(study.asked, request=request), reference_of=job.id)
    start = State(study.steps[0].step.x, sigma=own[0])
    return _submitted(worker, finer, Begun(start, sigmas, lambda settings: (settings, True)))


def distances(study: Study, other: Study) -> list[dict[str, Any]]:
    """How far x is from another run's at every sigma that both have, root mean square."""
    if len({kept.step.x.shape for each in (study, other) for kept in each.steps}) > 1:
        raise Refused("the runs are of two sizes: they have no distance")
    there = {_level(sigma): x for sigma, x in _points(other)}
    nfe = [0]
    for kept in study.steps:
        nfe.append(nfe[-1] + kept.step.nfe)
    return [
        {"number": n, "sigma": sigma, "nfe": nfe[n], "rms": rms(x - there[_level(sigma)]).item()}
        for n, (sigma, x) in enumerate(_points(study))
        if _level(sigma) in there
    ]


def difference(prediction: Prediction, rows: slice) -> Tensor | None:
    """eps of the branch that is told the prompt, less that of the one that it is led away from."""
    branches = prediction.branches
    names = [name for name in branches if name != "cond"]
    if "cond" not in branches or not names:
        return None
    other = "uncond" if "uncond" in branches else names[0]
    return _cpu((branches["cond"].eps - branches[other].eps)[rows])


# --- pieces --------------------------------------------------------------------------------------


def _submitted(worker: Worker, study: Study, begun: Begun | None = None) -> Job:
    if begun is None and study.origin is not None:
        begun = Begun(study.origin.state, study.origin.sigmas, partial(_left, study))
    job = submit(worker, study.asked, study.keep, begun=begun)
    study.asked = job.task.asked  # with smaller pictures, perhaps
    job.kept[KEPT] = study
    return job


def _check_one_pass(settings: Settings) -> None:
    """Raises Refused for a run whose second pass is larger: a state is of one of them."""
    if settings.hires is not None:
        raise Refused("a run with a second pass is not gone on from", param="hires")


def _left(study: Study, shared: Settings) -> tuple[Settings, bool]:
    """The settings of a branch, and whether it goes on in the sigmas of what it came from."""
    origin = study.origin
    assert origin is not None
    old, changes = origin.settings, origin.changes
    prompt = (shared.prompt, None) if "prompt" in changes else None
    negative = shared.negative if "negative" in changes else None
    study.same_sigmas = same_schedule(old, shared)
    settings = gone_on(old, shared, origin.state, seed=shared.seed, asked=prompt, negative=negative)
    return settings, study.same_sigmas


def _finer(sigmas: list[float], parts: int) -> tuple[float, ...]:
    """Each interval in so many of equal ratio; one down to 0 stays whole."""
    finer: list[float] = []
    for sigma, below in pairwise(sigmas):
        cut = parts if below > 0 else 1
        finer += [sigma * (below / sigma) ** (i / cut) for i in range(cut)]
    return (*finer, sigmas[-1])


def _points(study: Study) -> list[tuple[float, Tensor]]:
    """(sigma, x) before every step, and after the last."""
    points = [(kept.step.sigma, kept.step.x) for kept in study.steps]
    last = [(kept.step.sigma_next, kept.step.x_next) for kept in study.steps[-1:]]
    return points + last


def _level(sigma: float) -> float:
    """The same for sigmas that differ by rounding."""
    return float(f"{sigma:.9g}")


def _small(step: Step, rows: slice) -> Step:
    """The step of one picture, without what only a running loop needs."""
    made = step.prediction
    prediction = Prediction(_cpu(made.x0[rows]), _cpu(made.eps[rows]), {}, made.origin)
    memory = tuple(memo._replace(value=_cpu(memo.value[rows])) for memo in step.memory)
    return Step(
        step.index, step.count, step.sigma, step.sigma_next, _cpu(step.x[rows]), prediction,
        _cpu(step.x_next[rows]), step.nfe, memory, step.draws,
    )  # fmt: skip


def _cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()
