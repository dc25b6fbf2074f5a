"""A solver of ours as a scheduler object of diffusers, whose pipelines run the loop themselves.

diffusers is imported here, so only `as_diffusers` imports this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin, FrozenDict
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from sdcore.brownian import noise_named
from sdcore.errors import InputError
from sdcore.interop.resumed import Question, layout, resumed
from sdcore.process import process_of
from sdcore.sampling import Draw, Interval, Memory, Noise, Prediction, Solver
from sdcore.schedulers import Scheduler, Spacing, resolve
from sdcore.schedulers.flow_config import flow_of
from sdcore.schedulers.spacing import Rule
from sdcore.schedulers.spacing.flow import CURVES, at_given

Generators = torch.Generator | list[torch.Generator] | None
Numbers = Sequence[float]


@dataclass
class StepOutput(BaseOutput):
    """What `step` returns, [B,...] both."""

    prev_sample: Tensor  # the network's next input
    pred_original_sample: Tensor  # x0 of this answer


class PipelineScheduler(SchedulerMixin, ConfigMixin):
    """See `sdcore.interop.as_diffusers`. x is in the network's form on both sides.

    order: questions of most steps, by which a pipeline counts.
    timesteps: what the network is told at each question.
    sigmas: where it is asked, in the form x0 + sigma * eps, and the end.
    begin_index, step_index: numbers of questions; None until they are known.
    """

    config_name = "scheduler_config.json"

    def __init__(
        self,
        solver: str | Solver | None,
        config: Mapping[str, Any],
        spacing: str | Spacing | Rule | None = None,
        eta: float | None = None,
        tail: str | float | None = None,
        noise: str | None = None,
        seeds: tuple[int, ...] = (),
    ) -> None:
        self._internal_dict = FrozenDict(config)
        self._read = taken_over(solver, config)
        self._asked = {"name": solver, "eta": eta, "tail": tail, "corrected": False}
        self._spacing = spacing
        chosen = self._resolved(spacing, mu=1.0)
        if chosen.entry.adaptive:
            raise InputError(
                f"{chosen.name} asks the model as often as it finds necessary, and a pipeline of "
                "diffusers has to know before: choose another solver"
            )
        self._noise_name = chosen.entry.noise if noise is None else noise
        noise_named(self._noise_name)  # raises for what is none
        self._seeds = seeds
        # Before it begins a pipeline asks for the order and how large the starting noise is.
        self._lay(chosen, chosen.spacing.steps or 4, None)
        self.num_inference_steps: int | None = None

    # --- what a pipeline asks of it before it begins --------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Numbers | None = None,
        sigmas: Numbers | None = None,
        mu: float | None = None,
    ) -> None:
        """Lay the schedule, and forget what was.

        timesteps: in place of a spacing, N of them, falling.
        sigmas: in place of a spacing, N + 1 of them, falling; along a flow N values s of 1 to 0,
            which are moved by its shift.
        mu: the shift, where the config leaves it to the picture's size.

        Raises InputError for what is no schedule, or for two at once.
        """
        if timesteps is not None and sigmas is not None:
            raise InputError("give timesteps or sigmas, not both")
        spacing, steps = self._spacing, num_inference_steps
        if timesteps is not None:
            steps = len(timesteps)
            spacing = self._alone(f"timesteps:{_listed(timesteps)}")
        if sigmas is not None and flow_of(self._with(mu)) is None:
            steps = len(sigmas) - 1
            spacing = self._alone(f"sigmas:{_listed(sigmas)}")
        elif sigmas is not None:
            steps = len(sigmas)
            spacing = self._of_flow([float(s) for s in sigmas], mu) if spacing is None else spacing
        if steps is None:
            raise InputError("how many steps? give num_inference_steps, timesteps or sigmas")
        self._lay(self._resolved(spacing, mu), steps, device)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Where in `timesteps` to begin: at the first question of a step.

        Raises InputError where it is none, or the solver would ask otherwise from there on.
        """
        name, begins = self._chosen.name, self._layout.begins[:-1]
        if begin_index not in begins:
            raise InputError(
                f"timestep number {begin_index} is inside of a step of {name}, whose steps begin "
                f"at {', '.join(map(str, begins))}"
            )
        index = begins.index(begin_index)
        from_here = layout(self._chosen.solver, self._plan.sigmas, index)
        if from_here.sigmas != self._layout.sigmas[begin_index:]:
            raise InputError(
                f"{name} asks more often in its first step than in others, which a pipeline of "
                "diffusers that begins in the middle does not allow for: choose another solver"
            )
        self._index = index
        self.begin_index = self.step_index = begin_index

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample itself, which is in the network's form."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """A picture [B,...] with noise [B,...] as the network sees it at timesteps [B] or [1]."""
        sigmas = [self._sigma_at(float(t)) for t in timesteps.reshape(-1)]
        c_in = [self._process.c_in(sigma) for sigma in sigmas]
        mixed = [sigma * scale for sigma, scale in zip(sigmas, c_in, strict=True)]
        dims = [1] * (original_samples.ndim - 1)
        alpha, beta = (original_samples.new_tensor(n).reshape(-1, *dims) for n in (c_in, mixed))
        return alpha * original_samples + beta * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor | float, noise: Tensor) -> Tensor:
        """`add_noise` as pipelines of flow matching call it."""
        return self.add_noise(sample, noise, torch.as_tensor(timestep))

    # --- in a saved pipeline --------------------------------------------------------------------

    def to_json_string(self) -> str:
        """The config of the scheduler that the pipeline came with, under its own class."""
        known = {k: v for k, v in self._internal_dict.items() if k != "_use_default_values"}
        return json.dumps(known, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_config(cls, config: Any = None, **kwargs: Any) -> Any:
        """That scheduler: what a pipeline came with is what a saved one comes back with.

        The solver is not in the file, so a stranger's pipeline names none.
        """
        return getattr(diffusers, config["_class_name"]).from_config(config, **kwargs)

    # --- the loop, one question at a time -------------------------------------------------------

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> StepOutput | tuple[Tensor]:
        """From the network's answer [B,...] to its next input, both in its own form.

        timestep: read at the start only, where no begin index was set. generator: of the noise that
        the solver draws. Raises InputError before `set_timesteps` and after the last step, and
        where the solver asks what was not expected.
        """
        if self.num_inference_steps is None:
            raise InputError("no schedule is laid yet: call set_timesteps(N) before the first step")
        k = self._begin_at(float(timestep)) if self.step_index is None else self.step_index
        if self._index == self._interval(0).count:
            raise InputError("the schedule has ended: call set_timesteps to run again")
        interval, sigma = self._interval(self._index), self._layout.sigmas[k]
        x = self._in_the_loop(sample, sigma)
        self._x = x if not self._answers else self._x
        answer = Prediction(*self._process.x0_eps(model_output.to(x.dtype), x, sigma))
        self._answers.append(answer)
        self.step_index = k + 1
        outcome = resumed(
            self._chosen.solver, self._x, interval, self._memory, self._drawer(generator),
            self._answers,
        )  # fmt: skip
        self._check_expected(outcome, interval, k + 1)
        if isinstance(outcome, Question):
            after, scale = outcome.x, self._process.c_in(outcome.sigma)
        else:
            after, _, self._memory = outcome
            self._index, self._draws = self._index + 1, self._draws + len(self._drawn)
            self._answers, self._drawn = [], []
            ended = self._index == interval.count
            scale = self._plan.end_scale if ended else self._process.c_in(interval.sigma_next)
        handed = (after * scale).to(sample.dtype)
        self._handed = after, handed.clone()
        x0 = answer.x0.to(sample.dtype)
        return StepOutput(handed, x0) if return_dict else (handed,)

    def _begin_at(self, t: float) -> int:
        for begin in self._layout.begins[:-1]:
            if self._told[begin] == t:
                self.set_begin_index(begin)
                return begin
        raise InputError(f"no step of this schedule begins at timestep {t:g}")

    def _interval(self, index: int) -> Interval:
        sigmas = self._plan.sigmas
        index = min(index, len(sigmas) - 2)
        return Interval(sigmas[index], sigmas[index + 1], index, len(sigmas) - 1, sigmas)

    def _in_the_loop(self, sample: Tensor, sigma: float) -> Tensor:
        """x0 + sigma * eps of what the network saw; as it was, where nobody has changed it.

        So a run in half precision keeps its x in float32.
        """
        if self._handed is not None:
            x, handed = self._handed
            if torch.equal(handed, sample):
                return x
        dtype = torch.promote_types(sample.dtype, torch.float32)
        return sample.to(dtype) * self._process.spread(sigma)

    def _check_expected(self, outcome: object, interval: Interval, k: int) -> None:
        """Raises InputError where the next question is not number k of the timesteps."""
        within = k < self._layout.begins[interval.index + 1]
        expected = self._layout.sigmas[k] if within else None
        asked = outcome.sigma if isinstance(outcome, Question) else None
        if asked != expected:
            raise InputError(
                f"{self._chosen.name} asks the model otherwise than it did over an empty one: a "
                "pipeline of diffusers has to know its questions before"
            )

    def _drawer(self, generator: Generators) -> Draw:
        """The draws of this step, the same each time that the solver is run again."""
        count = 0
        x = self._x

        def draw(sigma: float, sigma_next: float) -> Tensor:
            nonlocal count
            if count == len(self._drawn):
                number = self._draws + count
                self._drawn.append(self._noise(generator, x)(number, sigma, sigma_next))
            count += 1
            return self._drawn[count - 1].to(x.dtype)

        return draw

    def _noise(self, generator: Generators, x: Tensor) -> Noise:
        """Of the seeds, or of the generators; where the draws hang together, of their seeds."""
        if self._noise_name == "independent" and not self._seeds:
            shape = tuple(x.shape)
            return lambda *_: randn_tensor(shape, generator, x.device, torch.float32)
        if self._made is None:
            seeds = self._seeds or _seeds(generator, len(x), self._noise_name)
            if len(seeds) != len(x):
                raise InputError(f"{len(seeds)} seeds, and {len(x)} pictures to draw noise for")
            self._made = noise_named(self._noise_name)(seeds, tuple(x.shape[1:]), x.device)
        return self._made

    # --- laying the schedule --------------------------------------------------------------------

    def _with(self, mu: float | None) -> Mapping[str, Any]:
        return self._read if mu is None else {**self._read, "mu": mu}

    def _resolved(self, spacing: str | Spacing | Rule | None, mu: float | None) -> Scheduler:
        return resolve(spacing=spacing, config=self._with(mu), **self._asked)

    def _alone(self, text: str) -> str:
        if self._spacing is not None:
            raise InputError("this scheduler has its own spacing; leave timesteps and sigmas out")
        return text

    def _of_flow(self, levels: list[float], mu: float | None) -> Spacing:
        flow = flow_of(self._with(mu))
        assert flow is not None
        return at_given(levels, flow.own_spacing if flow.own_spacing in CURVES else None)

    def _lay(self, chosen: Scheduler, steps: int, device: str | torch.device | None) -> None:
        plan = chosen.plan(steps)
        try:
            self._layout = layout(chosen.solver, plan.sigmas)
        except InputError as error:
            raise InputError(f"{chosen.name} is no scheduler of diffusers: {error}") from error
        self._chosen, self._plan = chosen, plan
        self._process = process_of(chosen.prediction_type, plan)
        told = [plan.timestep(sigma) for sigma in self._layout.sigmas]
        whole = all(t == int(t) for t in told)
        self.timesteps = torch.tensor(
            told, dtype=torch.int64 if whole else torch.float32, device=device
        )
        self._told = self.timesteps.tolist()
        self.sigmas = torch.tensor([*self._layout.sigmas, plan.sigmas[-1]], dtype=torch.float32)
        self.num_inference_steps, self.order = steps, self._layout.per_step
        self.init_noise_sigma = plan.start_scale / self._process.spread(plan.sigmas[0])
        self.begin_index: int | None = None
        self.step_index: int | None = None
        self._index, self._draws = 0, 0
        self._memory: Memory = ()
        self._x, self._made = torch.empty(0), None
        self._answers: list[Prediction] = []
        self._drawn: list[Tensor] = []
        self._handed: tuple[Tensor, Tensor] | None = None

    def _sigma_at(self, t: float) -> float:
        if t in self._told:
            return self._layout.sigmas[self._told.index(t)]
        return self._plan.sigma(t)

    def __len__(self) -> int:
        return int(self._internal_dict["num_train_timesteps"])


def taken_over(solver: str | Solver | None, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a solver's class takes over of the config of a scheduler object.

    All of it where it is that class's own; else what its file said, as the object notes of the rest
    that it is the class's default.
    """
    read = {key: value for key, value in config.items() if key != "_use_default_values"}
    if solver is None:
        return read
    filled = config.get("_use_default_values", ())
    return {key: value for key, value in read.items() if key not in filled}


def _listed(numbers: Numbers) -> str:
    return ",".join(repr(float(number)) for number in numbers)


def _seeds(generator: Generators, pictures: int, noise: str) -> tuple[int, ...]:
    """Raises InputError where one generator is to seed several pictures."""
    if generator is None:
        return tuple(torch.randint(2**63 - 1, (pictures,)).tolist())
    generators = generator if isinstance(generator, list) else [generator]
    if len(generators) != pictures:
        raise InputError(f"{noise} noise is seeded picture by picture: give a list of generators")
    return tuple(each.initial_seed() for each in generators)
