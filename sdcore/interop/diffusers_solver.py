"""A scheduler object of diffusers as a solver of our loop.

Such an object keeps in its attributes what it was told, and a solver is a pure function: so it is
the solver's memory that keeps it, to tell it again to a fresh copy of the object in every step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.interop.rebound import rebound
from sdcore.interop.remembered import Told, kept, note, steps_before, values
from sdcore.process import FLOW, Process, process_of, to_s
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction
from sdcore.schedulers import Entry, Grid, NoiseSchedule, Scheduler, Spacing
from sdcore.schedulers.conventions import FOREIGN
from sdcore.schedulers.flow_schedule import FlowSchedule, Schedule, to_sigma
from sdcore.schedulers.spacing.plan import MOST_STEPS

# How many steps back a class remembers; all, where it is not here: the corrected x of UniPC and
# SA-Solver goes on into the next correction.
_REMEMBERS = {
    **dict.fromkeys(("Euler", "Heun", "KDPM2", "DDIM", "DDPM", "LCM", "TCD", "FlowMatch"), 0),
    "DPMSolverSDE": 0,
    **dict.fromkeys(("LMS", "DPMSolver", "DEIS"), 4),
}
_SAME = 1e-6  # relative: sigmas of one grid, computed twice


def from_diffusers(scheduler: Any, mu: float | None = None) -> Scheduler:
    """A scheduler object of diffusers, or of its kind, as a scheduler of ours.

        run = sd.prepare("a red house", scheduler=from_diffusers(DEISMultistepScheduler(...)))

    It lays its own grid and steps by its own rule; the loop, guidance and noise are ours, so the
    noise that it draws comes from our seeds. The object itself is left as it is.

    mu: the shift of a flow, where its config leaves that to the picture's size.

    Raises InputError for what is no such object, or is of networks that are not drawn with here.
    """
    solver = DiffusersSolver(scheduler, mu)
    name, says = solver.name, solver.says
    entry = Entry(
        name, solver, order=0, nfe=scheduler.order, paper="", class_name=name,
        noise="brownian" if _is(scheduler, "DPMSolverSDE") else "independent",
    )  # fmt: skip
    first = solver.laid(10)
    scale = float(getattr(first.scheduler, "init_noise_sigma", 1.0))
    unit = not solver.in_sigma or scale > first.asked[0].sigma * (1 + _SAME)
    spacing = Spacing(
        f"{name}'s", solver.grid, first.end, "unit_variance" if unit else "sigma",
        "as_is" if solver.in_sigma else "unit_variance",
    )  # fmt: skip
    return Scheduler(name, solver, spacing, solver.schedule, says, entry)


def is_foreign(thing: Any) -> bool:
    """Whether it is a scheduler object of diffusers' kind. Raises InputError for its class."""
    if isinstance(thing, type) and hasattr(thing, "set_timesteps"):
        name = thing.__name__
        raise InputError(f"{name} is a class: make one, {name}.from_config(sd.scheduler_config)")
    return all(hasattr(thing, each) for each in ("set_timesteps", "step", "config"))


def brought(scheduler: Any) -> Any:
    """A scheduler object of diffusers' kind as one of ours; whatever else as it is."""
    return from_diffusers(scheduler) if is_foreign(scheduler) else scheduler


class Asked(NamedTuple):
    """A question of the model: where, what the network is told, and the number of it there."""

    sigma: float
    t: Any  # as the object has it
    number: int


@dataclass(frozen=True)
class Laid:
    """The object with its timesteps set, and what it will ask."""

    scheduler: Any
    asked: tuple[Asked, ...]
    begins: tuple[int, ...]  # the first question of each step; at the end, how many there are
    end: float  # the last sigma

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The loop's: where each step begins, and the last sigma."""
        return (*(self.asked[begin].sigma for begin in self.begins[:-1]), self.end)


@dataclass(frozen=True)
class DiffusersSolver:
    """A Solver. See `from_diffusers`."""

    scheduler: Any
    mu: float | None = None
    schedule: Schedule = field(init=False, compare=False)
    says: str = field(init=False, compare=False)
    in_sigma: bool = field(init=False, compare=False)  # it holds x0 + sigma * eps
    _laid: dict[int, Laid] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        schedule, says = _schedule_of(self.scheduler)
        object.__setattr__(self, "schedule", schedule)
        object.__setattr__(self, "says", says)
        other = copy.deepcopy(self.scheduler)
        self._set(other, 2)
        one = torch.ones(1, 1, 1, 1)
        seen = _seen(other, one, other.timesteps[0])
        object.__setattr__(self, "in_sigma", bool((seen != one).any()))

    @property
    def name(self) -> str:
        """The class's."""
        return type(self.scheduler).__name__

    @property
    def _depth(self) -> int:
        known = (n for start, n in _REMEMBERS.items() if _is(self.scheduler, start))
        return next(known, MOST_STEPS)

    def __call__(
        self, denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
    ) -> tuple[Tensor, Prediction, Memory]:
        """One step of the scheduler, as `sdcore.sampling.Solver` has it."""
        laid, process = self._on(interval), process_of(self.says, self.schedule)
        prediction = denoise(x, interval.sigma)
        origin = prediction.origin
        known = steps_before(self.name, memory, interval, origin)
        start = interval.index - len(known)
        scheduler = copy.deepcopy(laid.scheduler)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(laid.begins[start])
        for told in known:
            _tell_again(scheduler, told, laid)
        told_now: Told = []

        def drawn(sigma: float, sigma_next: float) -> Tensor:
            noise = draw(sigma, sigma_next)
            told_now.append(note(self.name, "noise", sigma, noise, origin, interval))
            return noise

        theirs = x * self._scale(process, interval.sigma)
        asked = self._questions(laid, interval, fresh=start == interval.index)
        for place, question in enumerate(asked):
            sigma = question.sigma
            here = prediction
            if place:
                here = denoise(theirs / self._scale(process, sigma), sigma)
            raw = process.raw(here.x0, here.eps, sigma).to(theirs.dtype)
            for what, value in (("x", theirs), ("raw", raw)):
                said = note(self.name, what, sigma, value, origin, interval, question.number)
                told_now.append(said)
            theirs = _stepped(scheduler, raw, question.t, theirs, drawn, sigma, interval.sigma_next)
        x_next = theirs / self._scale(process, interval.sigma_next)
        steps = [*known, told_now][-self._depth :] if self._depth else []
        return x_next.to(x.dtype), prediction, kept(steps)

    def grid(self, schedule: Schedule, steps: int) -> Grid:
        """The object's own: a Rule."""
        laid = self.laid(steps)
        begins = [laid.asked[begin] for begin in laid.begins[:-1]]
        return Grid(tuple(q.sigma for q in begins), tuple(float(q.t) for q in begins))

    def laid(self, steps: int) -> Laid:
        """The object over its own grid of so many steps."""
        if steps not in self._laid:
            scheduler = copy.deepcopy(self.scheduler)
            self._set(scheduler, steps)
            self._laid[steps] = self._described(scheduler)
        return self._laid[steps]

    def _set(self, scheduler: Any, steps: int) -> None:
        try:
            scheduler.set_timesteps(steps, **({} if self.mu is None else {"mu": self.mu}))
        except (ValueError, RuntimeError, IndexError) as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(f"{self.name} lays no {steps} steps: {said}") from error

    def _described(self, scheduler: Any) -> Laid:
        """What it will ask, by what its class keeps."""
        times, sigmas = list(scheduler.timesteps), self._sigmas(scheduler)
        count = len(times)
        if _is(scheduler, "PNDM"):  # its second timestep comes twice, wherever it begins
            times = [*times[:1], *times[2:]]
            sigmas, count = [self.schedule.sigma(float(t)) for t in times], len(times)
            begins = tuple(range(count + 1))
        elif scheduler.order == 2:
            begins = (*range(0, count, 2), count)
        else:
            begins = tuple(range(count + 1))
        places = sigmas[:count]
        for k in range(1, count, 2) if scheduler.order == 2 else ():
            places[k] = self._middle(scheduler, sigmas, k)
        asked = tuple(Asked(s, t, k) for k, (s, t) in enumerate(zip(places, times, strict=True)))
        return Laid(scheduler, asked, begins, self._end(scheduler, sigmas))

    def _sigmas(self, scheduler: Any) -> list[float]:
        """In the form x0 + sigma * eps, of all timesteps and perhaps the end."""
        if not hasattr(scheduler, "sigmas"):
            return [self.schedule.sigma(float(t)) for t in scheduler.timesteps]
        known = scheduler.sigmas.tolist()
        return [to_sigma(s) for s in known] if self.says == FLOW else known

    @staticmethod
    def _middle(scheduler: Any, sigmas: Sequence[float], k: int) -> float:
        """Where the second question of a step is asked."""
        if hasattr(scheduler, "sigmas_interpol"):
            return scheduler.sigmas_interpol[k - _is(scheduler, "KDPM2Ancestral")].item()
        if _is(scheduler, "DPMSolverSDE"):
            return math.sqrt(sigmas[k - 1] * sigmas[k])
        return sigmas[k]

    def _end(self, scheduler: Any, sigmas: Sequence[float]) -> float:
        if hasattr(scheduler, "sigmas"):
            return sigmas[-1]
        if _is(scheduler, "LCM", "DDPM"):
            return 0.0
        if _is(scheduler, "TCD"):
            return self.schedule.sigmas[0]
        acp = float(scheduler.final_alpha_cumprod)
        return math.sqrt((1 - acp) / acp)

    def _scale(self, process: Process, sigma: float) -> float:
        return 1.0 if self.in_sigma else process.c_in(sigma)

    def _on(self, interval: Interval) -> Laid:
        """The object over the loop's sigmas: its own, or, where it only reads them, any."""
        laid = self.laid(interval.count)
        if all(map(_same, laid.sigmas, interval.sigmas)) and len(laid.sigmas) > interval.count:
            return laid
        scheduler, asked = copy.deepcopy(laid.scheduler), laid.asked
        own: Any = getattr(scheduler, "sigmas", ())
        twice = _is(scheduler, "Heun", "FlowMatchHeun")  # it has each of them twice
        if not (twice or len(own) == interval.count + 1) or not _falls(interval.sigmas):
            raise InputError(f"{self.name} steps over the grid that it lays itself, and no other")
        if laid.end > 0 == interval.sigmas[-1]:
            raise InputError(f"{self.name} does not step to sigma 0: take a tail above it")
        first, *middle, last = interval.sigmas
        sigmas = [first, *(s for s in middle for _ in range(2)), last] if twice else interval.sigmas
        theirs = [to_s(s) if self.says == FLOW else s for s in sigmas]
        times = [self.schedule.timestep(sigma) for sigma in sigmas[:-1]]
        scheduler.sigmas = torch.tensor(theirs, dtype=own.dtype)
        scheduler.timesteps = torch.tensor(times).to(scheduler.timesteps.dtype)
        asked = tuple(map(Asked, sigmas[:-1], scheduler.timesteps, range(len(times))))
        return Laid(scheduler, asked, laid.begins, last)

    def _questions(self, laid: Laid, interval: Interval, fresh: bool) -> Sequence[Asked]:
        """Those of one step. fresh: it is the first of a run, wherever that begins."""
        index = interval.index
        if _is(self.scheduler, "PNDM") and fresh:
            return laid.asked[index : index + 2]
        return laid.asked[laid.begins[index] : laid.begins[index + 1]]


def _tell_again(scheduler: Any, told: Told, laid: Laid) -> None:
    """One remembered step, with the same noise."""
    noises = iter(values(told, "noise"))
    for memo, raw in zip(values(told, "x"), values(told, "raw"), strict=True):
        t = laid.asked[int(memo.note[2])].t
        _stepped(
            scheduler, raw.value, t, memo.value, lambda *_: next(noises).value, memo.sigma, 0.0
        )


def _stepped(
    scheduler: Any, raw: Tensor, t: Any, x: Tensor, draw: Draw, sigma: float, sigma_next: float
) -> Tensor:
    """prev_sample of the object's step, whose noise comes from `draw`.

    Its `step` is run with another `randn_tensor` among its globals than its module has.
    """

    def drawn(shape: Sequence[int], *_: Any, **__: Any) -> Tensor:
        return draw(sigma, sigma_next).to(raw.dtype).reshape(tuple(shape))

    if hasattr(scheduler, "noise_sampler"):
        scheduler.noise_sampler = lambda a, b: draw(float(a), float(b)).to(x.dtype)
    step = rebound(type(scheduler).step, randn_tensor=drawn)
    _seen(scheduler, x, t)
    return step(scheduler, raw, t, x, return_dict=False)[0]


def _seen(scheduler: Any, x: Tensor, t: Any) -> Tensor:
    """What the network is given of x; those of flow matching have no say in it."""
    scaled = getattr(scheduler, "scale_model_input", None)
    return x if scaled is None else scaled(x, t)


def _schedule_of(scheduler: Any) -> tuple[Schedule, str]:
    """The training levels, and what the network says. Raises InputError for what is not known."""
    name = type(scheduler).__name__
    if not is_foreign(scheduler):
        raise InputError(f"{name} is no scheduler of diffusers' kind: it has no set_timesteps")
    config = scheduler.config
    if name.startswith("FlowMatch") or config.get("use_flow_sigmas"):
        return FlowSchedule(length=config.get("num_train_timesteps", 1000)), FLOW
    trained = next((FOREIGN[each] for each in FOREIGN if name.startswith(each)), None)
    if trained is not None or not hasattr(scheduler, "alphas_cumprod"):
        raise InputError(
            f"{name} is of networks trained on {trained or 'something else'}, and not on a table "
            "of betas or along a flow: it cannot run here"
        )
    if _is(scheduler, "PNDM") and not config.get("skip_prk_steps"):
        raise InputError(
            f"{name} starts by Runge-Kutta steps that tell the network another timestep than x is "
            "at: set skip_prk_steps, or take ours, pndm_prk"
        )
    bar = tuple(scheduler.alphas_cumprod.tolist())
    return NoiseSchedule(bar), config.get("prediction_type", "epsilon")


def _is(scheduler: Any, *beginnings: str) -> bool:
    return type(scheduler).__name__.startswith(beginnings)


def _falls(sigmas: Sequence[float]) -> bool:
    return all(after < sigma for sigma, after in pairwise(sigmas))


def _same(a: float, b: float) -> bool:
    return a == b or abs(a - b) <= _SAME * max(a, b)
