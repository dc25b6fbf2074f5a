"""Recording a run while it is drawn: copies of what each step held, written when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.latent_colours import LatentColours
from sdcore.paths import check_folder, path_of
from sdcore.run import Run
from sdcore.sampling import Step
from sdcore.trajectory.file import WHAT, Moment, Trajectory

if TYPE_CHECKING:
    from PIL.Image import Image

DTYPES = {"float32": torch.float32, "float16": torch.float16}
MOST_FLOAT16 = 1e4  # sigma; float16 ends at 65,504, and x there is sigma times up to 5


class Recorder:
    """Keeps the steps of one run as they come: `add` each, then `trajectory` or `save`.

    what: of "x", "x0", "eps" and "branches". every: of so many steps one, and always the last.
    dtype: "float32", or "float16" for half the size. The copies stay on the run's device until
    they are saved, so that the loop never waits for them.

    Raises InputError for anything else, and where float16 cannot hold the run's x.
    """

    def __init__(
        self, run: Run, what: Sequence[str] = WHAT, every: int = 1, dtype: str = "float32"
    ) -> None:
        check_recording(what, every, dtype)
        if dtype == "float16" and "x" in what and max(run.sigmas) > MOST_FLOAT16:
            raise InputError(
                f"x begins at sigma {max(run.sigmas):g}, which float16 does not hold: record in "
                "float32"
            )
        self.run, self.what, self.every, self.dtype = run, tuple(what), every, DTYPES[dtype]
        self._moments: list[Moment] = []
        self._tensors: list[dict[str, Tensor]] = []  # of each moment, by name
        self._last: Step | None = None

    def add(self, step: Step) -> None:
        """Keep a step, if it is one of those that are wanted."""
        self._last = step
        if step.index % self.every == 0 or step.index + 1 == step.count:
            self._keep(step)

    def _keep(self, step: Step) -> None:
        self._moments.append(
            Moment(step.index, step.sigma, step.sigma_next, step.t, step.nfe, step.draws)
        )
        held = {"x": step.x, "x0": step.prediction.x0, "eps": step.prediction.eps}
        kept = {name: held[name] for name in self.what if name in held}
        if "branches" in self.what:
            for name, branch in step.prediction.branches.items():
                kept |= {f"branches.{name}.x0": branch.x0, f"branches.{name}.eps": branch.eps}
        self._tensors.append(
            {name: tensor.detach().to(self.dtype, copy=True) for name, tensor in kept.items()}
        )

    def trajectory(self, pictures: Sequence[Image] = ()) -> Trajectory:
        """What was kept so far: a prefix of the run, or all of it.

        pictures: of the last latents, to learn from what latents look like. Where a branch was not
        asked in a step, its tensors are NaN there. Raises InputError where there was no step.
        """
        last = self._last
        if last is None:
            raise InputError("no step was run: there is nothing to record")
        if self._moments[-1].index != last.index:  # stopped between two that are recorded
            self._keep(last)
        run, x_next = self.run, last.x_next.detach().float().cpu()
        names = dict.fromkeys(name for each in self._tensors for name in each)
        return Trajectory(
            settings=run.settings,
            sigmas=tuple(run.sigmas),
            moments=tuple(self._moments),
            tensors={name: self._stacked(name) for name in names},
            x_next=x_next,
            end_scale=run.end_scale,
            colours=_colours(x_next * run.end_scale, pictures),
            machine={"torch": torch.__version__, "device": _device(run.networks.device)},
        )

    def _stacked(self, name: str) -> Tensor:
        """[N,B,C,H,W]"""
        first = next(each[name] for each in self._tensors if name in each)
        absent = torch.full_like(first, float("nan"))
        return torch.stack([each.get(name, absent) for each in self._tensors]).cpu()

    def save(self, path: str | Path, pictures: Sequence[Image] = ()) -> Path:
        """Write what was kept, whole or not at all. Raises InputError as `trajectory` does."""
        return self.trajectory(pictures).save(path)


def record(
    run: Run,
    path: str | Path,
    what: Sequence[str] = WHAT,
    every: int = 1,
    dtype: str = "float32",
) -> Iterator[Step]:
    """The steps of a run, which are written to `path` when the loop is left, wherever that is.

        for step in record(run, "run.safetensors"):
            ...

    What the loop over it assigns to `step.x_next` is recorded. A run that is left early, by an
    error too, leaves a readable prefix; a process that is killed leaves nothing. Takes `what`,
    `every` and `dtype` as a Recorder; at the end one picture is decoded, for its colours.

    Raises InputError for a run of two passes, whose steps are of two sizes.
    """
    if run.then is not None:
        raise InputError("a record is of one pass: record(replace(run, then=None), ...)")
    check_folder(path_of(path).parent)
    recorder = Recorder(run, what, every, dtype)
    last: Step | None = None
    done = False
    try:
        for step in run:
            recorder.add(step)
            last = step
            yield step
            done = step.index + 1 == step.count
    finally:
        if last is not None:
            recorder.save(path, run.decode(last.x_next[:1].detach()) if done else ())


def check_recording(what: Sequence[str], every: int, dtype: str) -> None:
    """Raises InputError for what no Recorder takes."""
    known = (*WHAT, "branches")
    for name in what:
        if name not in known:
            raise InputError(f"there is no {name!r} to record: there is {', '.join(known)}")
    if not what:
        raise InputError(f"nothing is to be recorded: name some of {', '.join(known)}")
    if every < 1:
        raise InputError(f"of every so many steps one is recorded: at least 1, not {every}")
    if dtype not in DTYPES:
        raise InputError(f"a run is recorded in {' or '.join(DTYPES)}, not {dtype!r}")


def _colours(latents: Tensor, pictures: Sequence[Image]) -> LatentColours | None:
    from sdcore.images import to_tensor

    if not pictures:
        return None
    images = torch.cat([to_tensor(each) for each in pictures])
    return LatentColours.fit(latents[: len(images)], images)


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
