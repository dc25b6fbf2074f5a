"""Single files mixed, tensor by tensor, in float32, and stored as the first one stores them.

    weighted sum    A + alpha (B - A)
    add difference  A + alpha (B - C)

alpha may be another one for each block of the UNet, counted as LDM files count them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sdcore.checkpoints.key_tables import PREFIXES, part_at
from sdcore.checkpoints.ldm_families import UNET, VAE
from sdcore.checkpoints.read import Weights, read_metadata
from sdcore.errors import InputError, listed
from sdcore.paths import path_of
from sdcore.writing import check_target, written_whole

RECIPE = "sdcore.merge"  # the metadata key
BLOCK_GROUPS = ("in", "mid", "out", "unet", "text", "vae")
CONV_IN = "input_blocks.0.0.weight"  # of models that repaint it has 9 channels in place of 4
_BLOCK = re.compile(r"(?:in|out)\d{1,2}")


def merge(
    a: Path,
    b: Path,
    c: Path | None,
    target: Path,
    alpha: float = 0.5,
    blocks: Mapping[str, float] | None = None,
) -> tuple[str, ...]:
    """Write the mix of two files, or of a file and the difference of two, with its recipe inside.

    Args:
        alpha: any finite number; 0 is A.
        blocks: other alphas: "in4" (input_blocks.4), "mid", "out11", or for all that have none of
            their own "in", "out", "unet", "text", "vae".

    Returns:
        A line for what is not mixed: keys of A that another file lacks are A's, and so are the
        input channels that only an inpainting A has; keys that A lacks are left out.

    Raises:
        InputError: files with nothing in common or of other shapes, a block that A has not, a
            target that is there already or cannot be written. It is written beside, then renamed.
    """
    blocks = {} if blocks is None else dict(blocks)
    _check_alphas(alpha, blocks)
    target = path_of(target)
    if target.suffix != ".safetensors":
        raise InputError(f"{target} is no .safetensors name")
    check_target(target)
    paths = [path_of(path) for path in (a, b, c) if path is not None]
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path} is a folder: sdcore convert makes one file of it")
    first, *others = (Weights((path,)) for path in paths)
    there = {name for key in first.info for name in _names(key)}
    for name in blocks.keys() - there:
        raise InputError(f"{a} has no block {name!r}: --block would change nothing")
    spellings = [_spelt_as(first, other) for other in others]
    for other, keys in zip(others, spellings, strict=True):
        _check_shapes(first, other, keys)
    left = [key for key in first.info if any(key not in keys for keys in spellings)]
    mixed = _all_mixed(first, others, spellings, lambda key: _alpha(key, alpha, blocks))
    recipe = {"a": str(a), "b": str(b), "c": None if c is None else str(c)}
    notes = {**read_metadata(a), RECIPE: json.dumps({**recipe, "alpha": alpha, "blocks": blocks})}
    with written_whole(target) as path:
        save_file(mixed, path, notes)
    lines = [listed(f"keys are {a}'s, since another file lacks them", left)]
    used = set(spellings[0].values())
    unused = [key for key in others[0].info if key not in used]
    lines.append(listed(f"keys of {b} are left out, since {a} lacks them", unused))
    return tuple(filter(None, lines))


def _check_alphas(alpha: float, blocks: Mapping[str, float]) -> None:
    for name in blocks:
        if name not in BLOCK_GROUPS and not _BLOCK.fullmatch(name):
            raise InputError(
                f"unknown block {name!r}: in0 to in11, out0 to out11, {', '.join(BLOCK_GROUPS)}"
            )
    if not all(map(math.isfinite, (alpha, *blocks.values()))):
        raise InputError("alpha must be a finite number")


def _all_mixed(
    first: Weights,
    others: Sequence[Weights],
    spellings: Sequence[Mapping[str, str]],
    alpha: Callable[[str], float],
) -> dict[str, Tensor]:
    """Every tensor of the first file, mixed with those of the others where these have it.

    spellings: of each other, key of the first -> its own.
    """
    mixed: dict[str, Tensor] = {}
    mapped = [dict(other) for other in others]
    for key, tensor in first:
        share, there = alpha(key), all(key in keys for keys in spellings)
        if not there or share == 0 or not tensor.is_floating_point():
            mixed[key] = tensor.contiguous()
            continue
        plus, *minus = (
            tensors[keys[key]].float() for tensors, keys in zip(mapped, spellings, strict=True)
        )
        mixed[key] = _mixed(tensor, plus, minus[0] if minus else None, share)
    return mixed


def _spelt_as(first: Weights, other: Weights) -> dict[str, str]:
    """Key of the first file -> key of the other: the same, but for a prefix that one lacks."""
    keys = {key: key for key in first.info if key in other.info}
    for kind, prefixes in PREFIXES.items():
        mine = [p for p in prefixes if part_at(first.info, kind, p) is not None]
        its = [p for p in prefixes if part_at(other.info, kind, p) is not None]
        if len(mine) == len(its) == 1 and mine != its:
            ours = (key for key in first.info if key.startswith(mine[0]))
            pairs = {key: its[0] + key.removeprefix(mine[0]) for key in ours}
            keys |= {key: twin for key, twin in pairs.items() if twin in other.info}
    return keys


def _check_shapes(first: Weights, other: Weights, keys: Mapping[str, str]) -> None:
    a, place = first.files[0], other.files[0]
    if not keys:
        raise InputError(f"{place} has no key in common with {a}")
    for key, twin in keys.items():
        mine, its = first.info[key].shape, other.info[twin].shape
        if mine == its:
            continue
        entrance = key.endswith(CONV_IN) and len(mine) == len(its) == 4
        if entrance and (mine[0], mine[2:]) == (its[0], its[2:]):
            if mine[1] > its[1]:
                continue
            raise InputError(
                f"{place} has {its[1]} input channels and {a} {mine[1]}: name the one that has "
                "more first"
            )
        raise InputError(
            f"{a} and {place} are not of one family: {key} is {list(mine)} in one, {list(its)} in "
            "the other"
        )


def _mixed(a: Tensor, b: Tensor, c: Tensor | None, share: float) -> Tensor:
    """A + share (B - C), C standing for A where there is none, in A's dtype.

    Where A repaints and another does not, A's input channels beyond the other's stay as they are.
    """
    whole = a.float()
    channels = min(t.shape[1] for t in (a, b, c) if t is not None) if a.ndim == 4 else None
    part, plus = whole, b
    minus = whole if c is None else c
    if channels is not None:
        part, plus, minus = whole[:, :channels], b[:, :channels], minus[:, :channels]
    new = part + share * (plus - minus)
    if channels is not None:
        new = torch.cat([new, whole[:, channels:]], dim=1)
    return new.to(a.dtype)


def _alpha(key: str, alpha: float, blocks: Mapping[str, float]) -> float:
    """The alpha of a key: of its own block, else of the part that this belongs to, else alpha."""
    for name in _names(key):
        if name in blocks:
            return blocks[name]
    return alpha


def _names(key: str) -> tuple[str, ...]:
    if not key.startswith(UNET):
        places = {VAE: "vae", "cond_stage_model.": "text", "conditioner.": "text"}
        return tuple(name for prefix, name in places.items() if key.startswith(prefix))
    place = re.match(r"(input|middle|output)_blocks?(?:\.(\d+))?", key.removeprefix(UNET))
    if place is None:
        return ("unet",)
    kind = {"input": "in", "middle": "mid", "output": "out"}[place[1]]
    return (kind, "unet") if kind == "mid" else (f"{kind}{int(place[2])}", kind, "unet")
