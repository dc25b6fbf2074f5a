"""Who answers the branches of a guidance: the network of a stage, that network with a change in
it, or another model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from sdcore.batch_invariance import EachAlone
from sdcore.denoiser import Denoiser
from sdcore.devices import float32_as
from sdcore.engine import Lossy, ready
from sdcore.errors import InputError
from sdcore.guidance import CFG, Conjunction, Guidance, accepted, branch_names, sources_of
from sdcore.networks import Networks
from sdcore.process import Process, process_of
from sdcore.prompts import prompt_parts
from sdcore.sampling import Denoise
from sdcore.schedulers import Plan
from sdcore.settings import Settings
from sdcore.stages import Stage

UNetCall = Callable[..., Tensor]  # (x, t, **conditions)


@dataclass(frozen=True)
class Answering:
    """Of a run, what decides who answers.

    networks: those of the stages that name none. prediction_type: what their UNet says.
    plan: whose clock the UNet is told; its timesteps are those of a fast form.
    guidance: it asks for its branches, on `sigmas`.
    answers: by branch, those of other models.
    lossy: what is traded for time. pictures: how many are drawn.
    """

    networks: Networks
    prediction_type: str
    plan: Plan
    guidance: Guidance
    sigmas: Sequence[float]
    answers: Mapping[str, Denoise]
    lossy: Lossy | None
    pictures: int

    def denoiser(self, stage: Stage) -> Denoiser:
        """(x, sigma) -> Prediction from this stage's sigma down.

        Raises InputError for a branch that nobody answers.
        """
        networks = self.networks if stage.networks is None else stage.networks
        said = self.prediction_type if stage.networks is None else networks.prediction_type
        process = process_of(said, self.plan)
        unet = ready(networks.unet, self.plan.timesteps, networks.engine, self.lossy)
        others = self._others(stage, networks, process)
        for name in branch_names(self.guidance, self.sigmas):
            if name not in stage.conditions and name not in others:
                raise InputError(
                    f"the guidance asks for the branch {name!r}, which this run has not read: "
                    "give the guidance to prepare(guidance=...)"
                )
        return Denoiser(
            self._asked(unet, networks, stage),
            process,
            stage.conditions,
            self.guidance,
            networks.dtype,
            networks=others,
        )

    def _others(self, stage: Stage, networks: Networks, process: Process) -> dict[str, Denoise]:
        """The branches that the network does not answer as it is."""
        others: dict[str, Denoise] = {}
        for name, source in sources_of(self.guidance).items():
            if name not in self.answers and name not in stage.conditions:
                continue
            if name in self.answers and (source.model or source.change is not None):
                others[name] = self.answers[name]
            elif source.change is not None:
                unet = self._asked(source.change(networks.unet), networks, stage)
                told = {"cond": stage.conditions[name]}
                others[name] = Denoiser(unet, process, told, CFG(1), networks.dtype)
            elif source.model:
                raise InputError(
                    f"another model answers the branch {name!r} of this guidance, and a program "
                    f"alone can bring one: replace(run, answers={{{name!r}: other_run.denoise}})"
                )
        return others

    def _asked(self, unet: UNetCall, networks: Networks, stage: Stage) -> UNetCall:
        """The UNet as it is asked: picture by picture on a CPU, in the networks' float32."""
        if networks.device.type == "cpu":
            unet = EachAlone(unet, self.pictures, stage.lengths)

        def ask(x: Tensor, t: float, **told: Tensor) -> Tensor:
            with float32_as(networks.tf32):
                return unet(x, t, **told)

        return ask


def over_parts(guidance: Guidance, settings: Sequence[Settings]) -> Guidance:
    """The guidance; over the parts of the prompts, where AND divides any of these.

    Raises InputError for one with a branch that only the first of the parts could be told.
    """
    guidance = accepted(guidance)
    parts = [prompt_parts(each.prompt, each.grammar) for each in settings]
    weights = tuple(tuple(weight for _, weight in row) for row in parts)
    if all(row == (1.0,) for row in weights):
        return guidance
    for name, source in sources_of(guidance).items():
        if source.like == "cond" and (source.model or source.change is not None):
            raise InputError(
                f"AND joins several prompts, and the branch {name!r} of this guidance would be "
                "told the first one alone: take another guidance, or one prompt"
            )
    return Conjunction(guidance, weights)
