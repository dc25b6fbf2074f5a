"""Fast networks as a loop calls them: prepared once, recorded where the device can, and given back
to the plain network where gradients are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sdcore.engine import graphs
from sdcore.engine.unet import Texts
from sdcore.models import VAE, UNet

GRAPHS = 8  # recordings kept for a network: DeepCache with T-GATE takes 5, a whole one more
KEPT = 64  # pictures, times the sets of branches, whose texts are kept


@contextmanager
def untracked():
    """Neither gradients nor inference mode: what is made here may be written to anywhere."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@dataclass
class Kept:
    """A network in its fast form, what this was made from, and its recordings."""

    network: Any
    made_from: tuple
    recorded: dict[tuple, graphs.Graph] = field(default_factory=dict)

    def graph(
        self, key: tuple, function: Callable[..., Any], inputs: Sequence[Tensor]
    ) -> graphs.Graph | None:
        """The recording for these shapes; None where none can be made."""
        if not graphs.supported(inputs[0].device):
            return None
        # What a recording was made with is part of it: float32 may mean two things (devices.py).
        key = (*key, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
        if key not in self.recorded:
            while len(self.recorded) >= GRAPHS:
                del self.recorded[next(iter(self.recorded))]
            self.recorded[key] = graphs.Graph(function, inputs)
        return self.recorded[key]


@dataclass
class Past:
    """What is left of the questions about a picture: see `sdcore.engine.reuse`.

    t: of the last question. deep: features of the steps in `group`. texts: what attention to the
    text gave.
    """

    t: float = float("inf")
    deep: Tensor | None = None
    group: int = -1
    texts: Texts | None = None


@dataclass
class Told:
    """What the UNet is told beside x and t, and what was made of it once."""

    context: Tensor
    added: Mapping[str, Tensor]
    texts: Texts
    shifts: dict[float, Tensor]  # by timestep
    past: Past = field(default_factory=Past)

    def is_of(self, context: Tensor, added: Mapping[str, Tensor]) -> bool:
        """Whether these very tensors were told."""
        return (
            self.context is context
            and self.added.keys() == added.keys()
            and all(added[name] is value for name, value in self.added.items())
        )


class FastUNetCall:
    """A fast UNet in a loop: texts and times are prepared once, and graphs recorded once."""

    name = "fast"
    record = True  # in graphs, where the device has them

    def __init__(self, plain: UNet, kept: Kept, timesteps: Sequence[float]) -> None:
        self.plain, self.kept, self.network = plain, kept, kept.network
        self.timesteps = tuple(dict.fromkeys(map(float, timesteps)))
        self.told: list[Told] = []

    def __call__(
        self, x: Tensor, t: float, context: Tensor, extra: Tensor | None = None, **added: Tensor
    ) -> Tensor:
        inputs = [x, context, *added.values()] + ([] if extra is None else [extra])
        if torch.is_grad_enabled() and any(value.requires_grad for value in inputs):
            return self.differentiable(x, t, context, extra, **added)
        with untracked():
            told = self._told(context, added)
            t = float(t)
            if t not in told.shifts:
                told.shifts[t] = self.network.shifts([t], added)[0]
            if extra is not None:
                x = torch.cat([x, extra.to(x)], dim=1)
            return self.answer(x, t, told)

    def differentiable(self, *asked: Any, **added: Tensor) -> Tensor:
        """The answer where something asks for gradients."""
        return self.plain(*asked, **added)

    def answer(self, x: Tensor, t: float, told: Told) -> Tensor:
        """The prediction [B,4,h,w] for x [B,C,h,w], contiguous."""
        network = self.network

        def whole(x: Tensor, shift: Tensor, texts: Texts) -> tuple[Tensor, ...]:
            return (network(x, shift, texts).contiguous(),)

        return self.asked("whole", whole, [x, told.shifts[t]], told.texts)[0]

    def asked(
        self, name: str, function: Callable[..., tuple], changing: list[Tensor], texts: Texts
    ) -> tuple[Tensor, ...]:
        """function(*changing, texts), from a recording of this name where there can be one."""
        if not self.record:
            return function(*changing, texts)

        def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
            count = len(changing)
            return function(*tensors[:count], _folded(tensors[count:], texts))

        lasting = _flat(texts)
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in changing)
        kinds = tuple(isinstance(text, Tensor) for text in texts)
        key = (name, shapes, kinds, lasting[0].shape if lasting else ())
        graph = self.kept.graph(key, flat, [*changing, *lasting])
        if graph is None:
            return function(*changing, texts)
        graph.load(changing)
        if graph.held is not texts:
            graph.load(lasting, begin=len(changing))
            graph.held = texts
        return graph()

    def _told(self, context: Tensor, added: Mapping[str, Tensor]) -> Told:
        for told in self.told:
            if told.is_of(context, added):
                return told
        shifts: dict[float, Tensor] = {}
        if self.timesteps:
            rows = self.network.shifts(self.timesteps, added)
            shifts = dict(zip(self.timesteps, rows, strict=True))
        dtype = self.plain.conv_in.weight.dtype
        texts = self.network.keys_values(context.to(dtype))
        self.told.append(Told(context, dict(added), texts, shifts))
        del self.told[:-KEPT]
        return self.told[-1]


class FastDecoderCall:
    """A fast decoder: latents [B,4,h,w] -> pictures [B,3,8h,8w]."""

    name = "fast"
    record = True

    def __init__(self, plain: VAE, kept: Kept) -> None:
        self.plain, self.kept, self.network = plain, kept, kept.network

    def __call__(self, latents: Tensor) -> Tensor:
        if torch.is_grad_enabled() and latents.requires_grad:
            return self.plain.decode(latents)
        latents = latents.to(self.plain.dtype)

        def decode(latents: Tensor) -> tuple[Tensor, ...]:
            return (self.network(latents).contiguous(),)

        with untracked():
            key = (latents.shape, latents.dtype)
            graph = self.kept.graph(key, decode, [latents]) if self.record else None
            if graph is None:
                return decode(latents)[0]
            graph.load([latents])
            return graph()[0]


def _flat(texts: Texts) -> list[Tensor]:
    """Every tensor in them."""
    return [each for text in texts for each in ([text] if isinstance(text, Tensor) else text)]


def _folded(tensors: Sequence[Tensor], like: Texts) -> Texts:
    """What `_flat` made of texts like these, as texts again."""
    rest = iter(tensors)
    return tuple(
        next(rest) if isinstance(text, Tensor) else (next(rest), next(rest)) for text in like
    )
