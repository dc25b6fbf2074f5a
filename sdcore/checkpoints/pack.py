"""A UNet's weights in 8 bits, made so as it is loaded: what `quantize` writes, without the file.

    int8    a scale for every row, w = scale * q with scale = max |w| / 127: at most half of it off
    fp8     float8 e4m3 (Micikevicius et al. 2022, arXiv 2209.05433) and one scale a weight: 3 bits
            of mantissa, 1/16 of itself off at most, where it is not next to nothing

It is drawn in the mode of memory `quantized`: memory is what is saved, and not time.
"""

from __future__ import annotations

from torch import nn

from sdcore.checkpoints.packed import Packed, Scaled
from sdcore.checkpoints.quantize import LARGEST, scaled
from sdcore.errors import InputError, unknown

KINDS = tuple(LARGEST)


def mode_of(kind: str | None, memory: str | None) -> str | None:
    """The mode of memory for weights held so, of the one that is asked for.

    Raises InputError for a kind that is none, and for another mode than `quantized`.
    """
    if kind is None:
        return memory
    if kind not in KINDS:
        raise unknown("way to hold weights", kind, KINDS)
    if memory not in (None, "quantized"):
        raise InputError(f"--weights {kind} is drawn in --memory quantized, not {memory}")
    return "quantized"


def pack(unet: nn.Module, kind: str) -> None:
    """Hold the weights of every block of `unet` in 8 bits, in place; first and last stay whole.

    What lies packed already stays as it is.
    """
    for name, block in unet.named_children():
        if not name.endswith(("_block", "_blocks")):
            continue
        for layer in block.modules():
            weight = getattr(layer, "weight", None)
            if isinstance(layer, nn.Linear | nn.Conv2d) and not isinstance(weight, Packed):
                small, scale = scaled(layer.weight.detach().float(), kind)
                form = Scaled(small.flatten(), scale.float().flatten())
                packed = Packed(form, tuple(layer.weight.shape))
                layer.weight = nn.Parameter(packed, requires_grad=False)
