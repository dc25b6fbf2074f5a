"""The only caller of the UNet: everything between (x, sigma) and a Prediction.

The network was trained on the variance-preserving form sqrt(acp) * x0 + sqrt(1 - acp) * eps, which
is x / sqrt(1 + sigma^2) in the loop's form (Song et al. 2021, arXiv 2010.02502, section 4.3; c_in
of Karras et al. 2022, table 1). That form exists in this file only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdcore.errors import unknown
from sdcore.guidance import Guidance
from sdcore.sampling import Prediction


def from_eps(raw: Tensor, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """(x0, eps) from a network that says eps, such that x = x0 + sigma * eps. [B,C,H,W] all."""
    return torch.add(x, raw, alpha=-sigma), raw


def from_v(raw: Tensor, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The same from v = sqrt(acp) * eps - sqrt(1 - acp) * x0.

    Salimans & Ho 2022 (arXiv 2202.00512, appendix D).
    """
    c_in = (1 + sigma * sigma) ** -0.5  # sqrt(acp); x * c_in is the network's own form
    x0 = torch.add(x * (c_in * c_in), raw, alpha=-sigma * c_in)
    return x0, torch.add(x * (sigma * c_in * c_in), raw, alpha=c_in)


def from_x0(raw: Tensor, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The same from x0. There is no eps at sigma 0: infinities."""
    return raw, (x - raw) / sigma


TO_X0_EPS = {"epsilon": from_eps, "v_prediction": from_v, "sample": from_x0}  # published names
PREDICTION_TYPES = tuple(TO_X0_EPS)
_SHORT = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}


def known_prediction_type(name: str) -> str:
    """The published name of a prediction type; eps, v and x0 are understood too.

    Raises InputError for another one.
    """
    if _SHORT.get(name, name) not in PREDICTION_TYPES:
        raise unknown("prediction type", name, PREDICTION_TYPES)
    return _SHORT.get(name, name)


@dataclass(frozen=True)
class Denoiser:
    """A Denoise made of a UNet: scale the input, run the branches as one batch, combine, to x0.

    unet: (x [B,C,h,w], t: float, **conditions) -> [B,4,h,w] in any dtype.
    timestep: sigma -> t, e.g. `plan.timestep` or `noise_schedule.timestep`.
    conditions: for each branch name that the guidance asks for, what the UNet is told beside x and
        t, each [B,...] under the name of its argument: `context`, and for other families `extra`
        channels (inpainting), `text_embeds` and `time_ids` (SDXL).
    guidance: e.g. CFG(7.5).
    prediction_type: what the network says: "epsilon", "v_prediction" or "sample" (x0).
    dtype: what the network computes in; None takes x's.

    x keeps its dtype (float32 in the loop) on both sides. Raises InputError for another
    prediction_type.
    """

    unet: Callable[..., Tensor]
    timestep: Callable[[float], float]
    conditions: Mapping[str, Mapping[str, Tensor]]
    guidance: Guidance
    prediction_type: str = "epsilon"
    dtype: torch.dtype | None = None
    _joined: dict[tuple[str, ...], dict[str, Tensor]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise unknown("prediction type", self.prediction_type, PREDICTION_TYPES)

    def __call__(self, x: Tensor, sigma: float) -> Prediction:
        names = self.guidance.branches(sigma)
        c_in = (1 + sigma * sigma) ** -0.5
        x_in = x * c_in if self.dtype is None else (x * c_in).to(self.dtype)
        x_in = torch.cat([x_in] * len(names))  # [branches * B,C,H,W]
        out = self.unet(x_in, self.timestep(sigma), **self._join(names))
        if out.dtype != x.dtype:  # to ask torch for the dtype that it has takes 3 us
            out = out.to(x.dtype)
        raw = dict(zip(names, out.chunk(len(names)), strict=True))
        combined = self.guidance.combine(raw, sigma)
        return Prediction(*TO_X0_EPS[self.prediction_type](combined, x, sigma), raw)

    def _join(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        """The conditions of these branches in batch order.

        Made once: the same tensors come back each step, so a UNet may cache by them.
        """
        if names not in self._joined:
            parts = [self.conditions[name] for name in names]
            self._joined[names] = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
        return self._joined[names]
