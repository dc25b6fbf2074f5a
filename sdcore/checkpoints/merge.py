"""Single files mixed, tensor by tensor, in float32, and stored as the first one stores them.

    weighted sum    A + alpha (B - A)
    add difference  A + alpha (B - C)

alpha may be another one for each block of the UNet, counted as LDM files count them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from sdcore.checkpoints.families import UNET, VAE
from sdcore.checkpoints.read import Weights, read_metadata
from sdcore.errors import InputError, listed
from sdcore.paths import path_of
from sdcore.writing import check_target, written_whole

RECIPE = "sdcore.merge"  # the metadata key
PARTS = ("in", "mid", "out", "unet", "text", "vae")
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
        A line for what is not mixed: keys of A that another file lacks are A's.

    Raises:
        InputError: files with nothing in common or of other shapes, a block that A has not, a
            target that is there already or cannot be written. It is written beside, then renamed.
    """
    blocks = {} if blocks is None else dict(blocks)
    for name in blocks:
        if name not in PARTS and not _BLOCK.fullmatch(name):
            raise InputError(
                f"unknown block {name!r}: in0 to in11, out0 to out11, {', '.join(PARTS)}"
            )
    if not all(map(math.isfinite, (alpha, *blocks.values()))):
        raise InputError("alpha must be a finite number")
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
    for other in others:
        place, common = other.files[0], [key for key in first.info if key in other.info]
        if not common:
            raise InputError(f"{place} has no key in common with {a}")
        for key in common:
            mine, its = (list(weights.info[key].shape) for weights in (first, other))
            if mine != its:
                raise InputError(
                    f"{a} and {place} are not of one family: {key} is {mine} in one, {its} in the "
                    "other"
                )
    left = [key for key in first.info if any(key not in other.info for other in others)]
    mixed: dict[str, Tensor] = {}
    mapped = [dict(other) for other in others]
    for key, tensor in first:
        share = _alpha(key, alpha, blocks)
        if key in left or share == 0 or not tensor.is_floating_point():
            mixed[key] = tensor.contiguous()
            continue
        plus, *minus = (other[key].float() for other in mapped)
        base = minus[0] if minus else tensor.float()
        mixed[key] = (tensor.float() + share * (plus - base)).to(tensor.dtype)
    recipe = {"a": str(a), "b": str(b), "c": None if c is None else str(c)}
    notes = {**read_metadata(a), RECIPE: json.dumps({**recipe, "alpha": alpha, "blocks": blocks})}
    with written_whole(target) as path:
        save_file(mixed, path, notes)
    line = listed(f"keys are {a}'s, since another file lacks them", left)
    return (line,) if line else ()


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
