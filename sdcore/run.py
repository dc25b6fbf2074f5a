"""A prepared loop: every part of it in place, and nothing drawn yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdcore import state_file
from sdcore.answering import Answering, over_parts
from sdcore.engine import Lossy, choose
from sdcore.errors import InputError
from sdcore.guidance import Guidance, accepted, is_unpaired
from sdcore.html_tables import html_table
from sdcore.inpainting import Canvas, Kept, with_pixels
from sdcore.inversion import Recorded
from sdcore.networks import Networks
from sdcore.noise import OwnNoise, SeededNoise, part_of
from sdcore.process import process_of
from sdcore.sampling import Denoise, Solver, State, Step, sample
from sdcore.schedulers import Plan, Scheduler
from sdcore.schedulers.rehearsal import rehearse
from sdcore.settings import Settings, same_schedule
from sdcore.shown import brief, clipped
from sdcore.stages import Conditions, Stage, Staged, whole_steps
from sdcore.watermark import watermarked
from sdcore.written_forms import settings_of, written_form

if TYPE_CHECKING:
    from sdcore.sheets import Pictures


PUT_IN = ("solver", "guidance", "noise", "sigmas", "around")  # of which the settings speak


def unchanged(denoise: Denoise) -> Denoise:
    """The wrapper that does nothing."""
    return denoise


@dataclass(frozen=True)
class SecondPass:
    """What follows where a run has ended: the same pictures at another size, drawn on.

    It is prepared when the first pass is done, since its x is made of that one's.
    """

    size: tuple[int, int]  # of its latents: height, width
    plan: Plan
    sigmas: tuple[float, ...]
    index: int  # of the step that it begins with
    taken: Callable[[Run], tuple[Solver, Guidance]]  # its own, or what was put into the first pass
    # (the first pass, its unit-variance latents or None for zeros) -> the run
    prepared: Callable[[Run, Tensor | None], Run]

    def is_at(self, x: Tensor) -> bool:
        """Whether x [B,4,h,w] is one of its own, and not of the first pass."""
        return tuple(x.shape[-2:]) == self.size


@dataclass(frozen=True, repr=False)
class Run:
    """A prepared loop. Iterate over it for its steps, as often as you like: each time is afresh.
    Where it has a second pass, the steps of that one follow, of larger x.

    What `sample` takes lies open: `dataclasses.replace` changes any of it, and every step and
    every picture after that honours it. Nothing is drawn until then, and nothing in here changes.

        replace(run, start=State(x, index=8))       # image to image
        replace(run, guidance=mine, solver=heun)
        replace(run, around=lambda denoise: lambda x, sigma: steered(denoise(x, sigma)))

    start: where the loop begins: pure noise at sigmas[0], or the state of another run's step.
    guidance, solver, noise: as `sdcore.guidance` and `sdcore.sampling` define them.
    sigmas: the noise levels, one more than there are steps.
    around: Denoise -> Denoise, laid around the model. One that takes gradients says so by an
        attribute `needs_grad` = True: then `without_gradients`, in which the command line draws,
        still lets it do so.
    scheduler, plan: what it was prepared with: the clock that the network is told is theirs.
    """

    networks: Networks
    settings: tuple[Settings, ...]  # one for each picture
    scheduler: Scheduler
    plan: Plan
    guidance: Guidance
    noise: SeededNoise | OwnNoise  # every picture's own stream
    stages: tuple[Stage, ...]  # what the UNet is told; several where a prompt changes midway
    start: State
    solver: Solver
    sigmas: tuple[float, ...]
    around: Callable[[Denoise], Denoise] = unchanged
    answers: Mapping[str, Denoise] = field(default_factory=dict)  # by branch: of other models
    kept: Kept | None = None  # what is kept of a picture: laid around the model, below `around`
    lossy: Lossy | None = None  # what is traded for time, in the networks of the stages
    pasted: Canvas | None = None  # whose pixels are put back where they are kept
    then: SecondPass | None = None
    warnings: tuple[str, ...] = ()  # one line for each guess and each prompt that was cut
    described: Mapping[str, Any] | None = None  # what the settings speak of; None: all that is here

    def __post_init__(self) -> None:
        """Let the settings say what will run, where something else was put in.

        Raises InputError where that cannot run.
        """
        now = {name: getattr(self, name) for name in PUT_IN}
        before = now if self.described is None else self.described
        said: dict[str, Any] = {}
        for name, value in now.items():
            if value is not before[name] and (name != "sigmas" or value != before[name]):
                if name in ("solver", "noise", "around") and not callable(value):
                    like = ', e.g. resolve("euler").solver' if name == "solver" else ""
                    raise InputError(f"{name} is a function{like}, and no {type(value).__name__}")
                if name == "guidance":
                    accepted(value)  # raises where it is none
                said |= {"around": None} if value is unchanged else settings_of(name, value)
        settings = tuple(replace(each, **said) for each in self.settings)
        object.__setattr__(self, "settings", settings if said else self.settings)
        object.__setattr__(self, "described", now)

    def as_said(self, **changes: Any) -> Run:
        """This run with changes that its settings speak of already, or need not."""
        return replace(self, described=None, **changes)

    def __len__(self) -> int:
        """The number of steps that iterating over it makes."""
        start, sigmas = self._placed(self.start)
        later = 0 if self.then is None else len(self.then.sigmas) - 1 - self.then.index
        return len(sigmas) - 1 - (start.index if isinstance(start, State) else 0) + later

    def __repr__(self) -> str:
        first, more = self.settings[0], len(self.settings) - 1
        words = f"{brief(first.prompt)}, seed {first.seed}" + (f" and {more} more" if more else "")
        larger = "" if self.then is None else f"then {first.hires:g} times the size, "
        changed = "" if self.around is unchanged else f", around={brief(self.around)}"
        return clipped(
            f"Run({words}: {first.width}x{first.height} by {first.model}, {len(self)} steps of "
            f"{first.scheduler} on {first.spacing}, sigmas {brief(self.sigmas)}, {larger}"
            f"guidance={brief(self.guidance)}, noise {first.noise}{changed})"
        )

    def _repr_html_(self) -> str:
        first = self.settings[0]
        prompts = list(dict.fromkeys(each.prompt for each in self.settings))
        rows = [
            ("prompt", brief(prompts[0]) if len(prompts) == 1 else brief(prompts)),
            ("negative", brief(first.negative)),
            ("seeds", brief([each.seed for each in self.settings])),
            ("size", f"{first.width} x {first.height}"),
            ("model", first.model),
            ("scheduler", f"{first.scheduler} on {first.spacing}, {len(self)} steps"),
            ("guidance", written_form(self.guidance)),
            ("sigmas", brief(self.sigmas)),
            ("evaluations of the network", f"{self.nfe} for a picture"),
            *(("note", warning) for warning in self.warnings),
        ]
        return html_table("Run: nothing is drawn yet", rows)

    @property
    def conditions(self) -> Conditions:
        """What the UNet is told at first: branch -> argument -> [B,...]."""
        return self.stages[0].conditions

    @property
    def needs_grad(self) -> bool:
        """Whether what lies around the model takes gradients."""
        return getattr(self.around, "needs_grad", False)

    def without_gradients(self) -> AbstractContextManager[None]:
        """Inference mode; where something around the model takes gradients, it still can."""
        return torch.no_grad() if self.needs_grad else torch.inference_mode()

    @property
    def end_scale(self) -> float:
        """What turns the last x_next into unit-variance latents.

        1, but for schedules of diffusers that stop a little above sigma 0 and scale x there.
        """
        return _end_scale(self.scheduler, self.plan, self.sigmas)

    @cached_property
    def nfe(self) -> int:
        """How many evaluations of the network each picture will take, every branch counted."""
        passes = [(self.solver, self.joined, *self._placed(self.start))]
        if self.then is not None:
            solver, guidance = self.then.taken(self)
            guidance = over_parts(guidance, self.settings)
            passes.append(
                (solver, guidance, State(self.start.x, self.then.index), self.then.sigmas)
            )
        return sum(
            step.nfe
            for solver, guidance, start, sigmas in passes
            for step in rehearse(solver, sigmas, start, guidance.branches)
        )

    @cached_property
    def denoise(self) -> Denoise:
        """(x, sigma) -> Prediction, for this run's prompts."""
        answering = Answering(
            networks=self.networks,
            prediction_type=self.scheduler.prediction_type,
            plan=self.plan,
            guidance=self.joined,
            sigmas=self.sigmas,
            answers=self.answers,
            lossy=self.lossy,
            pictures=len(self.settings),
        )
        stages = [(stage.sigma, answering.denoiser(stage)) for stage in self.stages]
        denoise = stages[0][1] if len(stages) == 1 else Staged(stages)
        if self.kept is not None:
            denoise = replace(self.kept, unpaired=is_unpaired(self.guidance))(denoise)
        return self.around(denoise)

    @cached_property
    def joined(self) -> Guidance:
        """The guidance; over the parts of the prompts, where AND divides any of these."""
        return over_parts(self.guidance, self.settings)

    def __iter__(self) -> Iterator[Step]:
        return self.steps()

    def steps(self, start: Tensor | State | None = None) -> Iterator[Step]:
        """The loop: from the run's start, or from one as `sdcore.sample` takes it.

        A State that is between this run's sigmas goes on with those below it.
        A State of the second pass goes on in that one.
        The weights ask for no gradients, so none are kept unless x or the conditions do.
        """
        first = self.start if start is None else start
        return self.one_pass(first) if self.then is None else self._passes(first)

    def _passes(self, start: Tensor | State) -> Iterator[Step]:
        """Both passes, or what is left of them."""
        x = start.x if isinstance(start, State) else start
        if self.then is not None and self.then.is_at(x):
            yield from self.second(None).one_pass(start)
            return
        for step in self.one_pass(start):
            yield step
            x = step.x_next
        yield from self.second(x * self.end_scale).one_pass()

    def second(self, latents: Tensor | None) -> Run:
        """The second pass alone. latents: [B,4,h,w] of unit variance, with which the first ended;
        None: zeros, for whoever brings a State of it."""
        if self.then is None:
            raise InputError("this run has no second pass: prepare(hires=2)")
        return self.then.prepared(self, latents)

    def one_pass(self, start: Tensor | State | None = None) -> Iterator[Step]:
        """The steps of this run without those of its second pass."""
        first, solver = self.start if start is None else start, self.solver
        if len(self.stages) > 1:
            solver = whole_steps(solver)
        # What a lossy network remembers from step to step begins anew with the loop.
        denoise = self.denoise if self.lossy is None else replace(self).denoise
        return sample(denoise, *self._placed(first), solver, self.noise)

    def resumed(self, state: State | str | Path, sigmas: Sequence[float] = ()) -> Run:
        """This run from where another one stands, of these pictures: what is left of it.

        state: or the file of one. Of a file whose settings lay the steps as these do, its sigmas
        are taken, which may have been put in; and the draws that it holds.
        Where its sigmas are not these, the steps are those of this run below it. sigmas: of the
        other run (`state_file.read(path).sigmas`), to go on with all of them in place of these.
        Raises InputError for a state of other pictures, or with nothing below it.
        """
        if not isinstance(state, State):
            return self._from_file(state, sigmas)
        if self.then is not None and self.then.is_at(state.x):
            return self.second(None).resumed(state, sigmas)
        if sigmas:
            return self.as_said(sigmas=tuple(sigmas)).resumed(state)
        if state.x.shape != self.start.x.shape:
            shapes = [" x ".join(map(str, x.shape)) for x in (state.x, self.start.x)]
            raise InputError(f"a state of {shapes[0]} values does not go on with {shapes[1]}")
        device = self.start.x.device
        memory = tuple(memo._replace(value=memo.value.to(device)) for memo in state.memory)
        state = replace(state, x=state.x.to(device), memory=memory)
        if state.index >= len(self.sigmas) and state.sigma is None:
            raise InputError(f"the state is at step {state.index} of {len(self.sigmas) - 1}")
        placed, sigmas = self._placed(state)
        return self.as_said(start=placed, sigmas=tuple(sigmas))

    def _from_file(self, path: str | Path, sigmas: Sequence[float]) -> Run:
        """This run from where a file stands."""
        held = state_file.read(path)
        then = [Settings.from_json(text) for text in held.settings[:1]]
        if not sigmas and then and same_schedule(then[0], self.settings[0]):
            sigmas = held.sigmas
        run = self.resumed(State.load(path), sigmas)
        if not held.noise:
            return run
        return run.as_said(noise=Recorded(held.noise).to(run.start.x.device))

    def _placed(self, start: Tensor | State) -> tuple[Tensor | State, Sequence[float]]:
        """The start, and the sigmas in which its index counts."""
        if isinstance(start, State) and start.sigma not in (None, *self.sigmas[start.index :][:1]):
            return start.onto(self.sigmas)
        return start, self.sigmas

    def leaner(self) -> Run | None:
        """This run in the next leaner mode of memory; None where there is none.

        Its networks are changed in place. A run may go on in it from the `state` of a step.
        """
        networks = self.networks.leaner()
        return None if networks is None else self.on(networks)

    def on(self, networks: Networks) -> Run:
        """This run with the same networks in another mode of memory."""
        engine = choose(networks.unet, networks.engine).engine
        settings = tuple(each.held(networks.memory, engine) for each in self.settings)
        return replace(self, networks=networks, settings=settings)

    def decode(self, x: Tensor) -> Pictures:
        """The pictures of the last step's x_next [B,4,h,w].

        Some schedules stop a little above sigma 0; then x is first scaled to unit variance.
        """
        if self.then is not None and self.then.is_at(x):
            return self.pictures(x * _end_scale(self.scheduler, self.then.plan, self.then.sigmas))
        return self.pictures(x * self.end_scale)

    def pictures(self, latents: Tensor) -> Pictures:
        """The pictures of unit-variance latents [B,4,h,w], with what is kept of a given one."""
        done = latents if self.kept is None else self.kept.over(latents)
        pictures = self.networks.decode(done)
        if self.pasted is not None:
            pictures = type(pictures)(with_pixels(pictures, self.pasted))
        word = self.settings[0].watermark
        return pictures if word is None else type(pictures)(watermarked(pictures, word))

    def split(self, size: int) -> list[Run]:
        """The same pictures as several runs of at most `size` pictures."""
        if size < 1:
            raise InputError(f"a batch has at least 1 picture, not {size}")
        if self.answers and size < len(self.settings):
            raise InputError("what another model answers too is not split: take a larger batch")
        parts = [slice(i, i + size) for i in range(0, len(self.settings), size)]
        return [
            self.as_said(
                settings=self.settings[part],
                noise=part_of(self.noise, part),
                stages=tuple(stage.of(part) for stage in self.stages),
                start=_part_of(self.start, part),
                kept=None if self.kept is None else self.kept.of(part),
            )
            for part in parts
        ]


def _end_scale(scheduler: Scheduler, plan: Plan, sigmas: Sequence[float]) -> float:
    """What turns x at the last of these sigmas, which may be others than the plan's, to latents."""
    if plan.end_scale == 1 or sigmas[-1] == plan.sigmas[-1]:
        return plan.end_scale
    return process_of(scheduler.prediction_type, plan).c_in(sigmas[-1])


def _part_of(state: State, part: slice) -> State:
    """The state of some of the pictures."""
    memory = tuple(memo._replace(value=memo.value[part]) for memo in state.memory)
    return replace(state, x=state.x[part], memory=memory)
