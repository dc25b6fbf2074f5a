"""The difference of two models as a LoRA: what a fine-tuned one has learned, in a small file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sdcore.adapters.deltas import Parts
from sdcore.adapters.low_rank import factors
from sdcore.adapters.names import Place
from sdcore.checkpoints import Checkpoint, load_component
from sdcore.errors import InputError, listed


@dataclass
class Sizes:
    """Squared Frobenius norms: of the difference, and of what the LoRA leaves out of it."""

    whole: float = 0.0
    lost: float = 0.0

    @property
    def error(self) -> float:
        """What is left out, as a share of the difference."""
        return (self.lost / self.whole) ** 0.5 if self.whole else 0.0


@dataclass(frozen=True)
class Extracted:
    """A LoRA and how much of the difference it is."""

    layers: dict[Place, Parts]
    components: dict[str, nn.Module]  # A's, which say how the layers are spelled
    sizes: dict[str, Sizes]  # by component
    left: list[str]  # parameters that differ, and that are not in the LoRA


def extract(a: Checkpoint, b: Checkpoint, rank: int, conv_rank: int | None = None) -> Extracted:
    """B - A for every linear layer and convolution that differs, each at its nearest of this rank.

    Args:
        rank: of linear layers and convolutions of one pixel.
        conv_rank: of larger convolutions; None: the same; 0: they are left out.

    Raises:
        InputError: models of different networks, or without a difference, or broken ones.
    """
    new = Extracted({}, {}, {}, [])
    for name in (n for n in a.components if n in b.components and n != "vae"):
        ours, theirs = (load_component(each.components[name], "cpu", None) for each in (a, b))
        before, after = ours.state_dict(), theirs.state_dict()
        _check_alike(name, a, before, b, after)
        new.components[name], new.sizes[name] = ours, Sizes()
        for key in tqdm(before, name, unit="tensors", leave=False, disable=None):
            delta = after[key].float() - before[key].float()
            if not delta.isfinite().all():
                raise InputError(f"{a.path} or {b.path} holds what is no number in {name}.{key}")
            if delta.count_nonzero():
                place, _, last = key.rpartition(".")
                size = _rank_for(ours.get_submodule(place), rank, conv_rank)
                if last == "weight" and size:
                    new.layers[name, place] = _nearest(delta, size, new.sizes[name])
                else:
                    new.left.append(f"{name}.{key}")
    if not new.layers:
        raise InputError(f"{a.path} and {b.path} have no difference that a LoRA could hold")
    return new


def _check_alike(
    name: str,
    a: Checkpoint,
    before: Mapping[str, Tensor],
    b: Checkpoint,
    after: Mapping[str, Tensor],
) -> None:
    apart = sorted(before.keys() ^ after.keys())
    apart += [key for key in before.keys() & after.keys() if before[key].shape != after[key].shape]
    if apart:
        differ = listed("weights are not in both, or of another shape", apart)
        raise InputError(f"{a.path} and {b.path} have different networks: of {name} {differ}")


def _rank_for(layer: nn.Module, rank: int, conv_rank: int | None) -> int:
    """0 where a LoRA is not laid."""
    if isinstance(layer, nn.Conv2d):
        larger = layer.kernel_size != (1, 1) and conv_rank is not None
        return (conv_rank or 0) if larger else rank
    return rank if isinstance(layer, nn.Linear) else 0


def _nearest(delta: Tensor, rank: int, sizes: Sizes) -> Parts:
    """The parts of a LoRA for a weight, alpha its rank; `sizes` grows by what they are of it."""
    matrix = delta.flatten(1)
    down, up = factors(matrix, rank)
    sizes.whole += float(matrix.double().pow(2).sum())
    sizes.lost += float((matrix - up @ down).double().pow(2).sum())
    return parts_of(down, up, delta.shape)


def parts_of(down: Tensor, up: Tensor, shape: tuple[int, ...]) -> Parts:
    """down and up as the layer's own shape has them, [r, in, k, k] and [out, r, 1, 1], alpha r."""
    ones = (1,) * (len(shape) - 2)
    return {
        "down": down.reshape(len(down), *shape[1:]),
        "up": up.reshape(*up.shape, *ones),
        "alpha": torch.tensor(float(len(down))),
    }
