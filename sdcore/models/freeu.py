"""FreeU (Si et al. 2023, arXiv 2309.11497): stronger backbone, weaker skips, nothing trained."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.models.unet import UNet


@dataclass(frozen=True)
class FreeU:
    """The factors of the first two stages of the way up, as diffusers' `enable_freeu` takes them.

    b1, b2: of half of the backbone's channels; s1, s2: of the skips' lowest frequencies. All 1 is
    no change. The paper's for SD 1.5: b 1.5 and 1.6, s 0.9 and 0.2; SD 2.1: 1.4, 1.6, 0.9, 0.2;
    SDXL: 1.3, 1.4, 0.9, 0.2.

    Raises InputError for what is no finite number.
    """

    b1: float = 1.5
    b2: float = 1.6
    s1: float = 0.9
    s2: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"FreeU's {field.name} must be a finite number, not {value!r}")

    @classmethod
    def read(cls, text: str) -> Self:
        """Of "1.5,1.6,0.9,0.2": b1, b2, s1, s2. Raises InputError for another text."""
        try:
            b1, b2, s1, s2 = map(float, text.split(","))
        except ValueError:
            raise InputError(f"FreeU has four numbers, b1,b2,s1,s2: not {text!r}") from None
        return cls(b1, b2, s1, s2)

    def __str__(self) -> str:
        """As `read` takes it."""
        return ",".join(f"{getattr(self, field.name):g}" for field in fields(self))

    def __call__(self, stage: int, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """What is joined in a residual block of the way up, whose first block is stage 0.

        x: the backbone's features [B, C, h, w] (the paper's eq. 3 and 4, with a constant factor);
        skip: the features from the way down (eq. 5 to 7). Both are returned in their dtypes.
        """
        if stage > 1:
            return x, skip
        b, s = ((self.b1, self.s1), (self.b2, self.s2))[stage]
        half = x.shape[1] // 2
        return torch.cat([b * x[:, :half], x[:, half:]], dim=1), _low_frequencies(skip, s)


def _low_frequencies(x: Tensor, factor: float) -> Tensor:
    """`factor` on the frequencies 0 and -1 of either axis: the square of side 2 in the middle of
    the shifted spectrum, as the authors' code cuts it. In float32, which every FFT can do."""
    spectrum = torch.fft.fft2(x.float())
    mask = torch.ones(x.shape[-2:], device=x.device)
    for row in (0, -1):
        mask[row, [0, -1]] = factor
    return torch.fft.ifft2(spectrum * mask).real.to(x.dtype)


def with_freeu(unet: UNet, freeu: FreeU | None) -> UNet:
    """The UNet with these factors, or without any; the one given stays as it is, all weights are
    shared."""
    unet = copy.copy(unet)
    unet.freeu = freeu
    return unet
