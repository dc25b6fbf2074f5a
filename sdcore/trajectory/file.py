"""A recorded run as a file: every step, or every k-th, of what the loop held and the model said.

safetensors: "x", "x0" and "eps" [N,B,C,H,W], as far as they were asked for, of the N steps that
were recorded; "branches.NAME.x0", "branches.NAME.eps"; "x_next" [B,C,H,W], where the last of them
led; "colours" [C + 1, 3], from a latent pixel to a colour. In the metadata, under
"sdcore_trajectory", JSON: what each step was, the sigmas, and the settings of every picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sdcore.errors import InputError
from sdcore.latent_colours import LatentColours
from sdcore.paths import check_folder, file_of, is_picture, path_of
from sdcore.settings import Settings
from sdcore.sheets import Section, as_png, compose
from sdcore.shown import brief, clipped, listing
from sdcore.strict_json import parse
from sdcore.trajectory.frames import frames_of
from sdcore.writing import write_whole

KEY = "sdcore_trajectory"
VERSION = 1
WHAT = ("x", "x0", "eps")
MOST_STEPS = 1_000_000
COLUMNS = 10  # steps beside each other on a strip, at most


@dataclass(frozen=True)
class Moment:
    """What a step was, its tensors apart."""

    index: int
    sigma: float
    sigma_next: float
    t: float | None  # that the network was told
    nfe: int
    draws: int  # noise tensors drawn so far


@dataclass(frozen=True, repr=False)
class Trajectory:
    """A run as it was recorded. `Trajectory.load(path)` reads one, without the model.

    tensors: by name, [N,B,C,H,W] of the N moments: "x", "x0", "eps", "branches.cond.x0" ...
    x_next: [B,C,H,W], where the last recorded step led; times `end_scale` the latents.
    sigmas: of the whole run; moments are fewer where every k-th step was recorded, or it stopped.
    colours: what latents look like; None where no picture was decoded.
    """

    settings: tuple[Settings, ...]  # one for each picture
    sigmas: tuple[float, ...]
    moments: tuple[Moment, ...]
    tensors: Mapping[str, Tensor]
    x_next: Tensor
    end_scale: float = 1.0
    colours: LatentColours | None = None
    machine: Mapping[str, str] = field(default_factory=dict)  # torch's version, the device

    def __repr__(self) -> str:
        ran = f"{len(self.moments)} of {len(self.sigmas) - 1} steps recorded"
        return clipped(f"Trajectory({listing(shown_settings(self))}: {ran}, {brief(self.tensors)})")

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.moments) and self.moments[-1].index + 2 == len(self.sigmas)

    def __getitem__(self, name: str) -> Tensor:
        """A tensor [N,B,C,H,W] by name. Raises InputError where it was not recorded."""
        if name not in self.tensors:
            raise InputError(f"{name} was not recorded: there is {', '.join(self.tensors)}")
        return self.tensors[name]

    @property
    def colours_shown(self) -> LatentColours:
        """Its map from latents to colours; false colours where no picture was decoded."""
        return LatentColours.false(self.x_next) if self.colours is None else self.colours

    def frames(self, name: str) -> list[list[Image]]:
        """By picture, each recorded step's x0 or x; of x the signal and noise of unit variance."""
        steps = self[name].float()
        if name == "x":
            scales = [(1 + moment.sigma**2) ** -0.5 for moment in self.moments]
            steps = steps * torch.tensor(scales).reshape(-1, 1, 1, 1, 1)
        return frames_of(steps, self.colours_shown)

    def strip(self) -> Image:
        """All recorded steps of each picture: what was thought (x0), and what was there (x).

        Raises InputError where neither was recorded.
        """
        captions = [f"{each.index + 1}  sigma {each.sigma:.3g}" for each in self.moments]
        names = [name for name in ("x0", "x") if name in self.tensors] or ["x0"]
        films = {name: self.frames(name) for name in names}
        rows = -(-len(captions) // COLUMNS)
        sections = [
            Section(f"{title}: {name}", films[name][i], captions)
            for i, title in enumerate(shown_settings(self))
            for name in films
        ]
        return compose(sections, -(-len(captions) // rows))

    def _repr_png_(self) -> bytes | None:
        if not {"x0", "x"} & self.tensors.keys():
            return None
        return as_png(self.strip())

    def save(self, path: str | Path) -> Path:
        """Write it whole, in place of what is there. Raises InputError where that cannot be."""
        target = path_of(path)
        check_folder(target.parent)
        facts = {
            "version": VERSION,
            "sigmas": list(self.sigmas),
            "end_scale": self.end_scale,
            "moments": [asdict(each) for each in self.moments],
            "settings": [each.to_json() for each in self.settings],
            "machine": dict(self.machine),
        }
        tensors = {**self.tensors, "x_next": self.x_next}
        if self.colours is not None:
            tensors["colours"] = torch.cat([self.colours.weights, self.colours.bias[None]])
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_whole(target, save(whole, {KEY: json.dumps(facts)}))
        return target

    @classmethod
    def load(cls, path: str | Path) -> Trajectory:
        """What `save` wrote. Raises InputError for what is no such file, or garbled."""
        path = file_of(path)
        if is_picture(path):
            raise InputError(f"{path} is a picture, and no run: sample --record FILE writes one")
        try:
            with safe_open(path, "pt") as file:
                text = (file.metadata() or {}).get(KEY)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is no recorded run: {error}") from None
        if text is None:
            raise InputError(f"{path} is no recorded run: sample --record FILE writes one")
        try:
            return _read(parse(text), tensors)
        except InputError as error:
            raise InputError(f"{path} is garbled: {error}") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is garbled: {type(error).__name__}: {error}") from None


def _read(facts: Any, tensors: dict[str, Tensor]) -> Trajectory:
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        raise InputError("it was written by another version of sdcore")
    x_next, colours = tensors.pop("x_next"), tensors.pop("colours", None)
    moments = tuple(_moment(each) for each in facts["moments"])
    if not moments or len(moments) > MOST_STEPS:
        raise InputError("it holds no steps")
    if x_next.dim() != 4:
        raise InputError(f"x_next has the shape {list(x_next.shape)}")
    for name, tensor in tensors.items():
        if tensor.shape != (len(moments), *x_next.shape) or not tensor.is_floating_point():
            raise InputError(f"{name} is {tensor.dtype} of {list(tensor.shape)}")
    if colours is not None and colours.shape != (x_next.shape[1] + 1, 3):
        raise InputError(f"its colours have the shape {list(colours.shape)}")
    settings = tuple(Settings.from_json(each) for each in facts["settings"])
    if len(settings) != len(x_next):
        raise InputError(f"it has {len(x_next)} pictures and settings of {len(settings)}")
    return Trajectory(
        settings=settings,
        sigmas=tuple(_level(each) for each in facts["sigmas"]),
        moments=moments,
        tensors=tensors,
        x_next=x_next,
        end_scale=_level(facts["end_scale"]),
        colours=None if colours is None else LatentColours(colours[:-1], colours[-1]),
        machine={str(name): str(value) for name, value in facts["machine"].items()},
    )


def _moment(raw: Mapping[str, Any]) -> Moment:
    values = {each.name: raw[each.name] for each in fields(Moment)}
    for name, value in values.items():
        if type(value) not in (int, float) and not (name == "t" and value is None):
            raise InputError(f"the {name} of a step is {value!r:.40}")
    return Moment(**values)


def _level(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{value!r:.40} is no noise level")
    return float(value)


def is_record(path: Path) -> bool:
    """Whether a file is a recorded run. False for what is no safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def shown_settings(trajectory: Trajectory) -> Sequence[str]:
    """A line for each picture: its words and its seed."""
    return [f"{each.prompt}, seed {each.seed}" for each in trajectory.settings]
