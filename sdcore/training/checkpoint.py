"""Where a training stands, as a file that is whole or not there: checkpoint-000250.safetensors.

Weights, optimizer and average, in float32 as they are trained, and the number of steps. No state of
a generator: all chance comes from the seed and the step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdcore.checkpoints.read import read_metadata
from sdcore.errors import InputError
from sdcore.training.optimizer import Average
from sdcore.writing import written_whole

NUMBERED = re.compile(r"checkpoint-(\d{6,})\.safetensors")


def save_checkpoint(
    folder: Path,
    step: int,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: Average,
) -> Path:
    """Write the state after `step` steps, and only then take the older ones away."""
    path = folder / f"checkpoint-{step:06d}.safetensors"
    if not path.is_file():
        tensors = {f"weight.{i}": p.detach() for i, p in enumerate(parameters)}
        tensors |= {f"average.{i}": value for i, value in enumerate(average.values)}
        plain: dict[str, dict[str, Any]] = {}
        # Not as state_dict() has it: bitsandbytes lays its tensors into a dict of their own there.
        moved = [p for group in optimizer.param_groups for p in group["params"]]
        for number, parameter in enumerate(moved):
            for name, value in optimizer.state[parameter].items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{number}.{name}"] = value
                else:
                    plain.setdefault(str(number), {})[name] = value
        groups = [{k: v for k, v in g.items() if _is_plain(v)} for g in _groups(optimizer)]
        notes = {"step": str(step), "state": json.dumps(plain), "groups": json.dumps(groups)}
        with written_whole(path) as new:
            save_file({k: v.cpu().contiguous().clone() for k, v in tensors.items()}, new, notes)
    for other in _there(folder).values():
        if other != path:
            other.unlink(missing_ok=True)
    return path


def last_checkpoint(folder: Path) -> Path | None:
    """The newest one in a folder."""
    there = _there(folder)
    return there[max(there)] if there else None


def load_checkpoint(
    path: Path,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: Average,
) -> int:
    """Put weights, optimizer and average back as they were; how many steps that was after.

    Raises InputError for a file that is not of such a training.
    """
    notes = read_metadata(path)
    try:
        tensors = load_file(path)
        with torch.no_grad():
            for i, parameter in enumerate(parameters):
                parameter.copy_(tensors.pop(f"weight.{i}"))
            for i, value in enumerate(average.values):
                value.copy_(tensors.pop(f"average.{i}"))
        plain = json.loads(notes["state"])
        values: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in plain.items()}
        for key, tensor in tensors.items():
            _, number, name = key.split(".", 2)
            values.setdefault(int(number), {})[name] = tensor
        groups = [
            {**now, **then} for now, then in
            zip(_groups(optimizer), json.loads(notes["groups"]), strict=True)
        ]  # fmt: skip
        optimizer.load_state_dict({"state": values, "param_groups": groups})
        return int(notes["step"])
    except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{path} is no checkpoint of this training: {error}") from None


def _there(folder: Path) -> dict[int, Path]:
    named = ((p, NUMBERED.fullmatch(p.name)) for p in folder.glob("checkpoint-*.safetensors"))
    return {int(match[1]): path for path, match in named if match is not None}


def _groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return optimizer.state_dict()["param_groups"]


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, bool | int | float | str)
