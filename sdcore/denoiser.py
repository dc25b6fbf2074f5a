"""The only caller of the UNet: everything between (x, sigma) and a Prediction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdcore.guidance import Guidance
from sdcore.process import Process
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class Denoiser:
    """A Denoise made of a UNet: scale the input, run the branches as one batch, combine, to x0.

    unet: (x [B,C,h,w], t: float, **conditions) -> [B,4,h,w] in any dtype.
    process: what it was trained on: how it sees x, the clock it is told, what it says.
    conditions: for each branch name that the guidance asks for, what the UNet is told beside x and
        t, each [B,...] under the name of its argument: `context`, and for other families `extra`
        channels (inpainting), `text_embeds` and `time_ids` (SDXL).
    guidance: e.g. CFG(7.5).
    dtype: what the network computes in; None takes x's.

    x keeps its dtype (float32 in the loop) on both sides.
    """

    unet: Callable[..., Tensor]
    process: Process
    conditions: Mapping[str, Mapping[str, Tensor]]
    guidance: Guidance
    dtype: torch.dtype | None = None
    _joined: dict[tuple[str, ...], dict[str, Tensor]] = field(default_factory=dict, init=False)

    def __call__(self, x: Tensor, sigma: float) -> Prediction:
        names = self.guidance.branches(sigma)
        c_in = self.process.c_in(sigma)
        x_in = x * c_in if self.dtype is None else (x * c_in).to(self.dtype)
        x_in = torch.cat([x_in] * len(names))  # [branches * B,C,H,W]
        out = self.unet(x_in, self.process.clock.timestep(sigma), **self._join(names))
        if out.dtype != x.dtype:  # to ask torch for the dtype that it has takes 3 us
            out = out.to(x.dtype)
        raw = dict(zip(names, out.chunk(len(names)), strict=True))
        combined = self.guidance.combine(raw, sigma)
        return Prediction(*self.process.x0_eps(combined, x, sigma), raw)

    def _join(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        """The conditions of these branches in batch order.

        Made once: the same tensors come back each step, so a UNet may cache by them.
        """
        if names not in self._joined:
            parts = [self.conditions[name] for name in names]
            self._joined[names] = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
        return self._joined[names]
