"""The seam between the denoiser and a guidance: which branches run, and what becomes of them."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType, MethodType
from typing import Any, Protocol

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.process import Process
from sdcore.sampling import Prediction


class Guidance(Protocol):
    """What the denoiser asks of a guidance. Two pure methods, and sigma decides, never a counter.

    branches: the names of the branches to run at this sigma, in batch order. "cond" is told the
        prompt, "uncond" the negative one; others have a `Source`. Each costs one evaluation.
    combine: one Prediction from theirs, all of x [B,C,H,W] at sigma.
    """

    def branches(self, sigma: float, /) -> tuple[str, ...]: ...

    def combine(
        self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float, /
    ) -> Prediction: ...


@dataclass(frozen=True)
class Source:
    """Where the prediction of a branch comes from. A guidance holds a mapping `sources` of them.

    like: the branch whose conditions it is told.
    text: words of its own that it is told instead.
    model: another model is asked instead; the run, or the Denoiser, is given it.
    change: what becomes of the network: a callable with its arguments, made from it.
    """

    like: str = "cond"
    text: str | None = None
    model: bool = False
    change: Callable[[Any], Callable[..., Tensor]] | None = None


class Branches(Mapping[str, Prediction]):
    """What the networks said of x at sigma, by branch. Each is a Prediction once it is read.

    raw: the network's own outputs, [B,C,H,W]. others: of other networks. origin: of the whole.
    """

    __slots__ = ("origin", "others", "process", "raw", "sigma", "x")

    def __init__(
        self,
        raw: Mapping[str, Tensor],
        x: Tensor,
        sigma: float,
        process: Process,
        others: Mapping[str, Prediction] = MappingProxyType({}),
        origin: str = "",
    ) -> None:
        self.raw, self.x, self.sigma, self.process = raw, x, sigma, process
        self.others, self.origin = others, origin

    @property
    def t(self) -> float:
        """The time that the network was told."""
        return self.process.clock.timestep(self.sigma)

    def __getitem__(self, name: str) -> Prediction:
        if name in self.others:
            return self.others[name]
        return Prediction(*self.process.x0_eps(self.raw[name], self.x, self.sigma))

    def __iter__(self) -> Iterator[str]:
        return iter((*self.raw, *self.others))

    def __len__(self) -> int:
        return len(self.raw) + len(self.others)

    def made_of(self, raw: Tensor) -> Prediction:
        """What a sum of the network's outputs means, of weights that add up to 1."""
        return Prediction(*self.process.x0_eps(raw, self.x, self.sigma), self, self.origin)


def of_one_network(predictions: Mapping[str, Prediction], *names: str) -> Branches | None:
    """The branches, where the same network answered these, so that its outputs can be added."""
    if type(predictions) is Branches and predictions.raw.keys() >= set(names):
        return predictions
    return None


def lerp(predictions: Mapping[str, Prediction], start: str, end: str, weight: float) -> Prediction:
    """start + weight * (end - start), of the network's own outputs where it made both."""
    if (said := of_one_network(predictions, start, end)) is not None:
        return said.made_of(torch.lerp(said.raw[start], said.raw[end], weight))
    a, b = predictions[start], predictions[end]
    return Prediction(torch.lerp(a.x0, b.x0, weight), torch.lerp(a.eps, b.eps, weight))


def with_x0(x0: Tensor, x: Tensor, sigma: float) -> Prediction:
    """The Prediction of this x0: eps follows. There is none at sigma 0: infinities."""
    return Prediction(x0, (x - x0) / sigma)


def of_form(prediction: Prediction, form: str) -> Tensor:
    """Its "x0" or its "eps"."""
    return prediction.x0 if form == "x0" else prediction.eps


def with_form(form: str, value: Tensor, x: Tensor, sigma: float) -> Prediction:
    """The Prediction of this x0 or this eps; the other follows from x."""
    if form == "x0":
        return with_x0(value, x, sigma)
    return Prediction(torch.add(x, value, alpha=-sigma), value)


def parallel(vector: Tensor, to: Tensor) -> Tensor:
    """The part of each picture's `vector` [B,...] that is parallel to its `to`; 0 where `to` is."""
    over = tuple(range(1, vector.ndim))
    size = (to * to).sum(over, keepdim=True)
    return to * ((vector * to).sum(over, keepdim=True) / size.clamp(min=1e-30))


def column(values: Tensor, x: Tensor) -> Tensor:
    """One value for each picture, [B], as what multiplies an x [B,...]: [B,1,...]."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def parts_of(guidance: Guidance) -> Iterator[Guidance]:
    """It, and every guidance that it is made of."""
    yield guidance
    inner = getattr(guidance, "inner", None)
    for part in getattr(guidance, "parts", ()) if inner is None else (inner,):
        yield from parts_of(part)


def scale_of(guidance: Guidance) -> float | None:
    """The scale of the first of its parts that has one; None where none has."""
    scales = (getattr(part, "scale", None) for part in parts_of(guidance))
    return next((float(s) for s in scales if isinstance(s, int | float)), None)


def is_unpaired(guidance: Guidance) -> bool:
    """Whether x0 and eps of what it says are not those of one x."""
    return any(getattr(part, "unpaired", False) for part in parts_of(guidance))


def check_paired(guidance: Guidance, taker: str) -> None:
    """Raises InputError where x0 and eps of the guidance are not those of one x (`unpaired`).

    taker: what would make one follow from the other, and so undo that.
    """
    for part in parts_of(guidance):
        if getattr(part, "unpaired", False):
            raise InputError(
                f"{taker} cannot follow {type(part).__name__}, whose eps is not that of its x0: "
                f"leave {taker} out, or let it take another guidance"
            )


def sources_of(guidance: Guidance) -> dict[str, Source]:
    """What its branches other than "cond" and "uncond" are told, and by whom they are answered."""
    sources: dict[str, Source] = {}
    for part in parts_of(guidance):
        sources |= getattr(part, "sources", {})
    return sources


def branch_names(guidance: Guidance, sigmas: Iterable[float]) -> tuple[str, ...]:
    """Every branch that it may ask for on this schedule, between the sigmas too."""
    marks = list(sigmas)
    between = [
        high + (low - high) * part / 16 for high, low in pairwise(marks) for part in range(16)
    ]
    found = dict.fromkeys(name for s in (*between, *marks) for name in guidance.branches(s))
    return tuple(found)


def described(guidance: Any) -> str:
    """The guidance and its numbers as a text: equal for equal ones, also in another process."""
    text = repr(guidance)
    return text if " at 0x" not in text else _without_address(guidance)


def _without_address(thing: Any, above: tuple[Any, ...] = ()) -> str:
    """What an object is and holds, without where it lies. above: what holds it."""
    text = repr(thing)
    if " at 0x" not in text:
        return text
    if any(holder is thing for holder in above):
        return "..."
    above = (*above, thing)
    if isinstance(thing, Mapping):
        return f"{{{', '.join(f'{k!s}: {_without_address(v, above)}' for k, v in thing.items())}}}"
    if isinstance(thing, tuple | list):
        return f"({', '.join(_without_address(item, above) for item in thing)})"
    if isinstance(thing, MethodType):
        return f"{thing.__name__} of {_without_address(thing.__self__, above)}"
    held = getattr(thing, "__dict__", {})
    if not held:
        return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    return f"{name}({', '.join(f'{k}={_without_address(v, above)}' for k, v in held.items())})"


@dataclass(frozen=True)
class OfRaw:
    """A guidance of the older form, combine(raw outputs by name, sigma) -> one such output."""

    guidance: Any

    def branches(self, sigma: float) -> tuple[str, ...]:
        return self.guidance.branches(sigma)

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        assert isinstance(predictions, Branches)
        return predictions.made_of(self.guidance.combine(predictions.raw, sigma))


def accepted(guidance: Any) -> Guidance:
    """The guidance in today's form. Raises InputError for what is none."""
    if isinstance(guidance, type):
        raise InputError(f"{guidance.__name__} is a class: make a guidance of it, as CFG(7.5)")
    combine = getattr(guidance, "combine", None)
    if not callable(combine) or not callable(getattr(guidance, "branches", None)):
        raise InputError(
            f"{guidance!r:.200} is no guidance: it needs branches(sigma) -> names and "
            "combine(predictions, x, sigma) -> Prediction"
        )
    return OfRaw(guidance) if len(inspect.signature(combine).parameters) == 2 else guidance
