"""A prepared loop: every part of it in place, and nothing drawn yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdcore.batch import EachAlone
from sdcore.denoiser import Denoiser
from sdcore.errors import InputError
from sdcore.guidance import Guidance, accepted
from sdcore.networks import Networks
from sdcore.noise import SeededNoise
from sdcore.process import VariancePreserving
from sdcore.sampling import Denoise, Prediction, State, Step, sample
from sdcore.schedulers import Plan, Scheduler
from sdcore.settings import Settings
from sdcore.stages import Conditions, Stage, Staged, whole_steps

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Run:
    """A prepared loop. Iterate over it for its steps, as often as you like: each time is afresh.

    Nothing is drawn until then, and nothing in here changes.
    """

    networks: Networks
    settings: tuple[Settings, ...]  # one for each picture
    scheduler: Scheduler
    plan: Plan
    guidance: Guidance
    noise: SeededNoise  # every picture's own stream
    stages: tuple[Stage, ...]  # what the UNet is told; several where a prompt changes midway
    warnings: tuple[str, ...] = ()  # one line for each guess and each prompt that was cut

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The noise levels, steps + 1 of them."""
        return self.plan.sigmas

    @property
    def conditions(self) -> Conditions:
        """What the UNet is told at first: branch -> argument -> [B,...]."""
        return self.stages[0].conditions

    @cached_property
    def nfe(self) -> int:
        """How many evaluations of the network each picture will take, every branch counted."""
        still = torch.zeros(1, 1, 1, 1)
        one = Prediction(still, still)
        stub = lambda x, sigma: replace(  # noqa: E731
            one, branches=dict.fromkeys(self.guidance.branches(sigma), one)
        )
        draw = lambda draw, sigma, sigma_next: still  # noqa: E731
        return sum(s.nfe for s in sample(stub, still, self.sigmas, self.scheduler.solver, draw))

    @cached_property
    def denoise(self) -> Denoise:
        """(x, sigma) -> Prediction, for this run's prompts."""
        stages = [(stage.sigma, self._denoiser(stage)) for stage in self.stages]
        return stages[0][1] if len(stages) == 1 else Staged(stages)

    def _denoiser(self, stage: Stage) -> Denoiser:
        other = stage.networks
        networks = self.networks if other is None else other
        said = self.scheduler.prediction_type if other is None else other.prediction_type
        unet = networks.unet
        if networks.device.type == "cpu":
            unet = EachAlone(unet, len(self.settings), stage.lengths)
        process = VariancePreserving(self.plan, said)
        guidance = accepted(self.guidance)
        return Denoiser(unet, process, stage.conditions, guidance, dtype=networks.dtype)

    @property
    def start(self) -> Tensor:
        """Pure noise [B,4,h,w] at sigmas[0]."""
        return self.noise.start() * self.plan.start_scale

    def __iter__(self) -> Iterator[Step]:
        return self.steps()

    def steps(self, start: Tensor | State | None = None) -> Iterator[Step]:
        """The loop: from pure noise, or from a `start` as `sdcore.sample` takes it.

        The weights ask for no gradients, so none are kept unless x or the conditions do.
        """
        first, solver = self.start if start is None else start, self.scheduler.solver
        if len(self.stages) > 1:
            solver = whole_steps(solver)
        return sample(self.denoise, first, self.sigmas, solver, self.noise)

    def leaner(self) -> Run | None:
        """This run in the next leaner mode of memory; None where there is none.

        Its networks are changed in place. A run may go on in it from the `state` of a step.
        """
        networks = self.networks.leaner()
        return None if networks is None else self.on(networks)

    def on(self, networks: Networks) -> Run:
        """This run with the same networks in another mode of memory."""
        settings = tuple(replace(s, memory=networks.memory) for s in self.settings)
        return replace(self, networks=networks, settings=settings)

    def decode(self, x: Tensor) -> list[Image]:
        """The pictures of the last step's x_next [B,4,h,w].

        Some schedules stop a little above sigma 0; then x is first scaled to unit variance.
        """
        return self.networks.decode(x * self.plan.end_scale)

    def split(self, size: int) -> list[Run]:
        """The same pictures as several runs of at most `size` pictures."""
        if size < 1:
            raise InputError(f"a batch has at least 1 picture, not {size}")
        parts = [slice(i, i + size) for i in range(0, len(self.settings), size)]
        return [
            replace(
                self,
                settings=self.settings[part],
                noise=replace(self.noise, seeds=self.noise.seeds[part]),
                stages=tuple(stage.of(part) for stage in self.stages),
            )
            for part in parts
        ]
