"""What a network was trained on: the form of its input, its clock, and what it says.

Every x of the loop is x0 + sigma * eps. A network was trained on alpha * x0 + beta * eps instead,
told a time, and says one combination of x0 and eps. A process knows the way between the two, for
the loop (one sigma, a float) and for training (a batch of sigmas [B,1,1,1]).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from sdcore.errors import unknown

Sigma = TypeVar("Sigma", float, Tensor)
Pair = tuple[Tensor, Tensor]  # x0 and eps, [B,C,H,W] both


class Clock(Protocol):
    """sigma <-> t, the time that a network is told: a NoiseSchedule, or a Plan with its grid's."""

    def timestep(self, sigma: float, /) -> float: ...

    def sigma(self, t: float, /) -> float: ...


class Process(Protocol):
    """What the denoiser, the spacings, some solvers and training ask of it.

    For flow matching x_t = (1 - s) x0 + s eps is x / (1 + sigma) with sigma = s / (1 - s), and
    v = eps - x0; for EDM (Karras et al. 2022, table 1) c_in = 1 / sqrt(sigma^2 + sigma_data^2).
    """

    @property
    def clock(self) -> Clock: ...

    def c_in(self, sigma: Sigma, /) -> Sigma:
        """x * c_in is what the network sees."""
        ...

    def spread(self, sigma: float, /) -> float:
        """1 / c_in."""
        ...

    def x0_eps(self, raw: Tensor, x: Tensor, sigma: float | Tensor, /) -> Pair:
        """(x0, eps) from what the network says of x, such that x = x0 + sigma * eps."""
        ...

    def raw(self, x0: Tensor, eps: Tensor, sigma: float | Tensor, /) -> Tensor:
        """What a perfect network would say: the target of training."""
        ...

    def ancestral(self, sigma: float, sigma_next: float, eta: float, /) -> tuple[float, float]:
        """(sigma_down, sigma_up) of a step with a share eta of fresh noise, 0 to 1."""
        ...


def _plus(x: Tensor, tensor: Tensor, factor: float | Tensor) -> Tensor:
    """x + factor * tensor in one pass."""
    if isinstance(factor, (int, float)):
        return torch.add(x, tensor, alpha=factor)
    return torch.addcmul(x, tensor, factor)


def from_eps(raw: Tensor, x: Tensor, sigma: float | Tensor) -> Pair:
    """x0 = x - sigma eps, of a network that says eps."""
    return _plus(x, raw, -sigma), raw


def from_v(raw: Tensor, x: Tensor, sigma: float | Tensor) -> Pair:
    """x0 = acp x - sigma sqrt(acp) v and eps = sigma acp x + sqrt(acp) v, of one that says v."""
    c_in = (1 + sigma * sigma) ** -0.5  # sqrt(acp)
    x0 = _plus(x * (c_in * c_in), raw, -sigma * c_in)
    return x0, _plus(x * (sigma * c_in * c_in), raw, c_in)


def from_x0(raw: Tensor, x: Tensor, sigma: float | Tensor) -> Pair:
    """eps = (x - x0) / sigma, of a network that says x0; infinities at sigma 0."""
    return raw, (x - raw) / sigma


def to_v(x0: Tensor, eps: Tensor, sigma: float | Tensor) -> Tensor:
    """v = sqrt(acp) eps - sqrt(1 - acp) x0."""
    return (eps - sigma * x0) * (1 + sigma * sigma) ** -0.5


class Form(NamedTuple):
    """The two ways between what a network says and (x0, eps)."""

    x0_eps: Callable[[Tensor, Tensor, float | Tensor], Pair]  # (raw, x, sigma)
    raw: Callable[[Tensor, Tensor, float | Tensor], Tensor]  # (x0, eps, sigma)


FORMS = {  # by their published names
    "epsilon": Form(from_eps, lambda x0, eps, sigma: eps),
    "v_prediction": Form(from_v, to_v),
    "sample": Form(from_x0, lambda x0, eps, sigma: x0),
}
PREDICTION_TYPES = tuple(FORMS)
FLOW = "flow_prediction"  # v = eps - x0, along the straight path: another process
_SHORT = {"eps": "epsilon", "v": "v_prediction", "x0": "sample", "flow": FLOW}


def known_prediction_type(name: str) -> str:
    """The published name of a prediction type; eps, v, x0 and flow are understood too.

    Raises InputError for another one.
    """
    known = _SHORT.get(name, name)
    if known not in (*PREDICTION_TYPES, FLOW):
        raise unknown("prediction type", name, (*PREDICTION_TYPES, FLOW))
    return known


Split = Callable[[float, float, float], tuple[float, float]]  # (sigma, sigma_next, eta)


def ancestral(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): step down to the first, add noise of the second.

    sigma_down^2 + sigma_up^2 = sigma_next^2. With eta = 1 this is the posterior's variance of
    DDPM, and eta scales its root (Song et al. 2021, arXiv 2010.02502, eq. 16, in x0 + sigma * eps
    form). No noise on the way up (inversion).
    """
    if eta == 0 or not 0 < sigma_next < sigma:
        return sigma_next, 0.0
    ratio = sigma_next / sigma
    kept = max(1 - eta**2 + (eta * ratio) ** 2, 0.0)  # eta > 1 may ask for more noise than there is
    return sigma_next * math.sqrt(kept), sigma_next * min(eta * math.sqrt(1 - ratio**2), 1.0)


@dataclass(frozen=True)
class VariancePreserving:
    """The network's input is sqrt(acp) x0 + sqrt(1 - acp) eps, of variance 1 where x0 has it.

    That is x / sqrt(1 + sigma^2) in the loop's form (Song et al. 2021, arXiv 2010.02502, section
    4.3; c_in of Karras et al. 2022, table 1). This class alone knows it.

    clock: sigma <-> t; a run's Plan, else a NoiseSchedule.
    prediction_type: what the network says: "epsilon"; "sample" (x0), which has no eps at sigma 0
        (infinities); or "v_prediction", v = sqrt(acp) eps - sqrt(1 - acp) x0 (Salimans & Ho 2022,
        arXiv 2202.00512, appendix D). Raises InputError for another one.
    """

    clock: Clock
    prediction_type: str = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction_type not in FORMS:
            raise unknown("prediction type", self.prediction_type, PREDICTION_TYPES)

    def c_in(self, sigma: Sigma) -> Sigma:
        """sqrt(acp) = 1 / sqrt(1 + sigma^2)."""
        return cast(Sigma, (1 + sigma * sigma) ** -0.5)

    @staticmethod
    def spread(sigma: float) -> float:
        """sqrt(1 + sigma^2): how large x is where x0 has variance 1."""
        return math.hypot(1, sigma)

    def ancestral(self, sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
        """As `ancestral`, the function."""
        return ancestral(sigma, sigma_next, eta)

    @staticmethod
    def transition_variance(sigma: float, sigma_next: float) -> float:
        """Variance of DDPM's own step from sigma_next up to sigma, in the form x0 + sigma * eps.

        beta = 1 - acp / acp_next (Ho et al. 2020, arXiv 2006.11239, eq. 2), times 1 + sigma_next^2.
        """
        beta = (sigma**2 - sigma_next**2) / (1 + sigma**2)
        return beta * (1 + sigma_next**2)

    def x0_eps(self, raw: Tensor, x: Tensor, sigma: float | Tensor) -> Pair:
        """(x0, eps), [B,C,H,W] both, from what the network says of x."""
        return FORMS[self.prediction_type].x0_eps(raw, x, sigma)

    def raw(self, x0: Tensor, eps: Tensor, sigma: float | Tensor) -> Tensor:
        """What a perfect network would say, [B,C,H,W]."""
        return FORMS[self.prediction_type].raw(x0, eps, sigma)


class Sigmas:
    """The clock that tells sigma itself, which needs no table."""

    def timestep(self, sigma: float, /) -> float:
        return sigma

    def sigma(self, t: float, /) -> float:
        return t


def to_s(sigma: float) -> float:
    """The time s of flow matching at a finite sigma: 0 to 1 (pure noise)."""
    return sigma / (1 + sigma)


@dataclass(frozen=True)
class FlowClock:
    """t = 1000 s, of the flow's own time s = sigma / (1 + sigma), 0 to 1 (pure noise)."""

    length: float = 1000.0

    def timestep(self, sigma: float, /) -> float:
        """t = 1000 s; 1000 at pure noise, where sigma is infinite."""
        return self.length if math.isinf(sigma) else self.length * to_s(sigma)

    def sigma(self, t: float, /) -> float:
        """s / (1 - s); infinite at pure noise."""
        return math.inf if t == self.length else t / (self.length - t)


@dataclass(frozen=True)
class RectifiedFlow:
    """The network's input is (1 - s) x0 + s eps, and it says v = eps - x0.

    Liu et al. 2022 (arXiv 2209.03003) and Lipman et al. 2022 (arXiv 2210.02747), with time running
    as in Esser et al. 2024 (arXiv 2403.03206). In the loop's form s = sigma / (1 + sigma).
    """

    clock: Clock = FlowClock()

    def c_in(self, sigma: Sigma) -> Sigma:
        """1 - s = 1 / (1 + sigma)."""
        return cast(Sigma, 1 / (1 + sigma))

    @staticmethod
    def spread(sigma: float) -> float:
        """1 + sigma: x divided by it is what the network sees."""
        return 1 + sigma

    def x0_eps(self, raw: Tensor, x: Tensor, sigma: float | Tensor) -> Pair:
        """x0 = y - s v and eps = y + (1 - s) v, with y = (1 - s) x: [B,C,H,W] both."""
        c_in = 1 / (1 + sigma)
        return _plus(x * c_in, raw, -sigma * c_in), _plus(x * c_in, raw, c_in)

    def raw(self, x0: Tensor, eps: Tensor, sigma: float | Tensor) -> Tensor:
        """v = eps - x0, [B,C,H,W]."""
        return eps - x0

    def ancestral(self, sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
        """s_down = s_next (1 + (s_next / s - 1) eta), and noise up to sigma_next from there.

        ComfyUI's rule (its `_RF` samplers): at eta 1 the share of noise that a step takes away,
        s_next / s, is taken once more.
        """
        if eta == 0 or not 0 < sigma_next < sigma:
            return sigma_next, 0.0
        s, s_next = to_s(sigma), to_s(sigma_next)
        s_down = max(s_next * (1 + (s_next / s - 1) * eta), 0.0)  # below 0 where eta is above 1
        down = s_down / (1 - s_down)
        return down, math.sqrt(sigma_next**2 - down**2)


def process_of(prediction_type: str, clock: Clock) -> Process:
    """The process of a network that says this. Raises InputError for an unknown type."""
    if prediction_type == FLOW:
        return RectifiedFlow(clock)
    return VariancePreserving(clock, prediction_type)
