"""Several LoRAs as one: sum_i s_i (alpha_i/r_i) up_i @ down_i is one product of joined factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdcore.adapters.deltas import LOW_RANK, MAGNITUDES, Parts, change, factor
from sdcore.adapters.extract import Sizes, parts_of
from sdcore.adapters.lora import LoRA
from sdcore.adapters.low_rank import factors, fewer, product_norm
from sdcore.adapters.names import Place
from sdcore.adapters.resize import pair
from sdcore.errors import InputError

ON_WEIGHTS = {"glora_a1", *MAGNITUDES}  # parts of kinds whose change is one of the weight's own
BIASES = {"diff_b", "b_norm"}


@dataclass(frozen=True)
class Joined:
    """One LoRA, and how far it is from the sum."""

    layers: Mapping[Place, Parts]
    error: float  # of the whole change


def join(
    loras: Sequence[LoRA], components: Mapping[str, nn.Module], rank: int | None = None
) -> Joined:
    """One LoRA that acts as all of these at once, each at its strength.

    Args:
        components: the networks, of which shapes alone count; they may be on the meta device.
        rank: what every layer is cut to; None: the sum of their ranks, which loses nothing.

    Raises:
        InputError: parts that fit another shape, or that no LoRA can hold; a kind that is no
            product of two factors (LoHa, LoKr, a difference) without a rank to bring it to.
    """
    places = dict.fromkeys(place for lora in loras for place in lora.layers)
    layers: dict[Place, Parts] = {}
    sizes = Sizes()
    for place in places:
        shape = _shape(components, place)
        acting = [each for each in loras if place in each.layers and each.strength(place[0]) != 0]
        if acting:
            layers[place] = _joined(acting, place, shape, rank, sizes)
    if not layers:
        raise InputError("nothing is left of them: every strength is 0")
    return Joined(layers, sizes.error)


def _shape(components: Mapping[str, nn.Module], place: Place) -> tuple[int, ...]:
    weight = components[place[0]].get_submodule(place[1]).weight
    assert isinstance(weight, Tensor)
    return tuple(weight.shape)


def _joined(
    loras: Sequence[LoRA], place: Place, shape: tuple[int, ...], rank: int | None, sizes: Sizes
) -> Parts:
    downs, ups = [], []
    for lora in loras:
        try:
            down, up = _factors(lora.layers[place], shape, rank)
        except InputError as error:
            raise InputError(f"{lora.name}, {'.'.join(place)}: {error}") from None
        downs.append(down)
        ups.append(lora.strength(place[0]) * up)
    down, up = torch.cat(downs), torch.cat(ups, dim=1)
    sizes.whole += product_norm(down, up) ** 2
    if rank is not None and rank < len(down):
        short, tall = fewer(down, up, rank)
        apart = product_norm(torch.cat([down, short]), torch.cat([up, -tall], dim=1))
        sizes.lost += apart**2
        down, up = short, tall
    return parts_of(down, up, shape)


def _factors(parts: Parts, shape: tuple[int, ...], rank: int | None) -> tuple[Tensor, Tensor]:
    """down [r, n] and up [out, r] whose product is a layer's change."""
    if not ON_WEIGHTS.isdisjoint(parts):
        raise InputError(
            "its change depends on the weights: sdcore convert IN OUT --lora merges it into a model"
        )
    if not BIASES.isdisjoint(parts):
        raise InputError("it changes a bias, which a LoRA has no place for")
    delta_of = torch.empty(shape)
    if parts.keys() >= LOW_RANK:
        down, up = (each.flatten(1) for each in pair(parts))
        if (len(up), down.shape[1], up.shape[1]) == (shape[0], delta_of[0].numel(), len(down)):
            return down, factor(parts) * up
    delta = change(parts, delta_of).flatten(1)  # says what does not fit
    if len(shape) < 2:
        raise InputError("it changes a norm, which a LoRA has no place for")
    if rank is None:
        raise InputError(f"it is no LoRA ({', '.join(sorted(parts))}): give a rank to bring it to")
    return factors(delta, rank)
