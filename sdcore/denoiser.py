"""The only caller of the UNet: everything between (x, sigma) and a Prediction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sdcore.devices import check_finite
from sdcore.guidance import Branches, Guidance, described
from sdcore.process import Process
from sdcore.sampling import Denoise, Prediction


@dataclass(frozen=True)
class Denoiser:
    """A Denoise made of a UNet: scale the input, run the branches as one batch, combine, to x0.

    unet: (x [B,C,h,w], t: float, **conditions) -> [B,4,h,w] in any dtype.
    process: what it was trained on: how it sees x, the clock it is told, what it says.
    conditions: for each branch name that the guidance asks for, what the UNet is told beside x and
        t, each [B,...] under the name of its argument: `context`, and for other families `extra`
        channels (inpainting), `text_embeds` and `time_ids` (SDXL).
    guidance: e.g. CFG(7.5).
    networks: for each branch that another network answers, a Denoise.
    origin: of its predictions: a solver puts those of one origin together. None: the guidance's
        own description; a prompt that changes midway keeps it.
    dtype: what the network computes in; None takes x's.

    x keeps its dtype (float32 in the loop) on both sides.
    """

    unet: Callable[..., Tensor]
    process: Process
    conditions: Mapping[str, Mapping[str, Tensor]]
    guidance: Guidance
    dtype: torch.dtype | None = None
    networks: Mapping[str, Denoise] = field(default_factory=dict)
    origin: str | None = None
    _joined: dict[tuple[str, ...], dict[str, Tensor]] = field(default_factory=dict, init=False)

    def __call__(self, x: Tensor, sigma: float) -> Prediction:
        """The Prediction of x [B,C,H,W] at sigma, under the guidance."""
        asked = self.guidance.branches(sigma)
        names, others = (asked, {}) if not self.networks else self._answered(asked, x, sigma)
        raw = self._ask(x, sigma, names) if names else {}
        predictions = Branches(raw, x, sigma, self.process, others, self._origin)
        guided = self.guidance.combine(predictions, x, sigma)
        if guided.branches is predictions:
            return guided
        return Prediction(guided.x0, guided.eps, predictions, self._origin)

    @cached_property
    def _origin(self) -> str:
        return described(self.guidance) if self.origin is None else self.origin

    def _answered(
        self, asked: tuple[str, ...], x: Tensor, sigma: float
    ) -> tuple[tuple[str, ...], dict[str, Prediction]]:
        """The branches that are left to the UNet, and what other networks say of theirs."""
        others = {name: self.networks[name](x, sigma) for name in asked if name in self.networks}
        return tuple(name for name in asked if name not in others), others

    def _ask(self, x: Tensor, sigma: float, names: tuple[str, ...]) -> dict[str, Tensor]:
        """What the UNet says, [B,C,H,W] for each branch."""
        c_in = self.process.c_in(sigma)
        x_in = x * c_in if self.dtype is None else (x * c_in).to(self.dtype)
        x_in = torch.cat([x_in] * len(names))  # [branches * B,C,H,W]
        out = self.unet(x_in, self.process.clock.timestep(sigma), **self._join(names))
        if out.device.type == "cpu":  # elsewhere it would wait for the device in every step
            check_finite(out, f"the UNet, at sigma {sigma:.4g},", out.dtype)
        if out.dtype != x.dtype:  # to ask torch for the dtype that it has takes 3 us
            out = out.to(x.dtype)
        return dict(zip(names, out.chunk(len(names)), strict=True))

    def _join(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        """The conditions of these branches in batch order.

        Made once: the same tensors come back each step, so a UNet may cache by them.
        """
        if names not in self._joined:
            parts = [self.conditions[name] for name in names]
            self._joined[names] = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
        return self._joined[names]
