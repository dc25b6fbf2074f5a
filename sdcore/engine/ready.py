"""The seam: a network, made ready to be called in a loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sdcore.engine import graphs
from sdcore.engine.choose import choose, ops_for
from sdcore.engine.unet import FastUNet, KeysValues
from sdcore.engine.vae import FastDecoder
from sdcore.models import VAE, UNet
from sdcore.models.layers import placement

T = TypeVar("T")
GRAPHS = 4  # recordings kept for a network: each holds the memory of its inputs
KEPT = 64  # pictures, times the sets of branches, whose texts are kept


def ready(unet: UNet, timesteps: Sequence[float], engine: str = "auto") -> Callable[..., Tensor]:
    """The UNet as a callable (x, t, context, extra=None, **added), as the Denoiser takes it.

    timesteps: those that it will be asked at, as far as they are known; any other may come too.
    engine: as `choose` takes it. Raises InputError for one that is none.
    """
    chosen = choose(unet, engine)
    if chosen.engine == "compile":
        return _compiled(unet)
    if chosen.engine == "plain":
        return _plain(unet, chosen.why is not None)
    return FastUNetCall(unet, _fast(unet, FastUNet), timesteps)


def ready_decoder(vae: VAE, engine: str = "auto") -> Callable[[Tensor], Tensor]:
    """The VAE's `decode` as a callable."""
    chosen = choose(vae, engine)
    if chosen.engine == "fast":
        return FastDecoderCall(vae, _fast(vae, FastDecoder))
    if chosen.engine == "compile":
        return _compiled(vae.decode)
    return _plain(vae, chosen.why is not None).decode


@dataclass
class _Kept:
    """A network in its fast form, the weights that this was made from, and its recordings."""

    network: Any
    weights: tuple
    recorded: dict[tuple, graphs.Graph] = field(default_factory=dict)

    def graph(
        self, key: tuple, function: Callable[..., Tensor], inputs: Sequence[Tensor]
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


_KEPT: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()


def _state(network: nn.Module) -> tuple:
    """What tells whether weights are still the same: where they lie, and how often written to."""
    return tuple((id(p), p.data_ptr(), _writes(p)) for p in network.parameters())


def _writes(parameter: Tensor) -> int:
    """How often it was written to; 0 where torch does not count, in inference mode."""
    try:
        return parameter._version
    except RuntimeError:
        return 0


def _fast(network: Any, form: Callable[..., Any]) -> _Kept:
    kept = _KEPT.get(network)
    if kept is None or kept.weights != _state(network):
        ops = ops_for(*placement(network))
        assert ops is not None
        with untracked():
            made = form(network, ops)
        kept = _KEPT[network] = _Kept(made, _state(network))
    return kept


@contextmanager
def untracked():
    """Neither gradients nor inference mode: what is made here may be written to anywhere."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@dataclass(frozen=True)
class _Told:
    """What the UNet is told beside x and t, and what was made of it once."""

    context: Tensor
    added: Mapping[str, Tensor]
    texts: KeysValues
    shifts: dict[float, Tensor]  # by timestep

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

    def __init__(self, plain: UNet, kept: _Kept, timesteps: Sequence[float]) -> None:
        self.plain, self.kept, self.network = plain, kept, kept.network
        self.timesteps = tuple(dict.fromkeys(map(float, timesteps)))
        self.told: list[_Told] = []

    def __call__(
        self, x: Tensor, t: float, context: Tensor, extra: Tensor | None = None, **added: Tensor
    ) -> Tensor:
        inputs = [x, context, *added.values()] + ([] if extra is None else [extra])
        if torch.is_grad_enabled() and any(value.requires_grad for value in inputs):
            return self.plain(x, t, context, extra, **added)
        with untracked():
            told = self._told(context, added)
            t = float(t)
            if t not in told.shifts:
                told.shifts[t] = self.network.shifts([t], added)[0]
            if extra is not None:
                x = torch.cat([x, extra.to(x)], dim=1)
            return self._run(x, told.shifts[t], told)

    def _told(self, context: Tensor, added: Mapping[str, Tensor]) -> _Told:
        for told in self.told:
            if told.is_of(context, added):
                return told
        shifts: dict[float, Tensor] = {}
        if self.timesteps:
            rows = self.network.shifts(self.timesteps, added)
            shifts = dict(zip(self.timesteps, rows, strict=True))
        dtype = self.plain.conv_in.weight.dtype
        texts = self.network.keys_values(context.to(dtype))
        self.told.append(_Told(context, dict(added), texts, shifts))
        del self.told[:-KEPT]
        return self.told[-1]

    def _run(self, x: Tensor, shift: Tensor, told: _Told) -> Tensor:
        count = len(told.texts)

        def function(x: Tensor, shift: Tensor, *flat: Tensor) -> Tensor:
            texts = tuple((flat[2 * i], flat[2 * i + 1]) for i in range(count))
            return self.network(x, shift, texts)

        flat = [part for pair in told.texts for part in pair]
        if self.record:
            key = (x.shape, x.dtype, shift.shape, flat[0].shape if flat else ())
            graph = self.kept.graph(key, function, [x, shift, *flat])
            if graph is not None:
                graph.load([x, shift])
                if graph.held is not told:
                    graph.load(flat, begin=2)
                    graph.held = told
                return graph()
        return function(x, shift, *flat).contiguous()


class FastDecoderCall:
    """A fast decoder: latents [B,4,h,w] -> pictures [B,3,8h,8w]."""

    name = "fast"
    record = True

    def __init__(self, plain: VAE, kept: _Kept) -> None:
        self.plain, self.kept, self.network = plain, kept, kept.network

    def __call__(self, latents: Tensor) -> Tensor:
        if torch.is_grad_enabled() and latents.requires_grad:
            return self.plain.decode(latents)
        latents = latents.to(self.plain.dtype)
        with untracked():
            if self.record:
                key = (latents.shape, latents.dtype)
                graph = self.kept.graph(key, self.network, [latents])
                if graph is not None:
                    graph.load([latents])
                    return graph()
            return self.network(latents).contiguous()


def _plain(network: T, for_good: bool) -> T:
    """The network itself, its weights laid as they were read.

    for_good: it has become one that has no fast form; what that took is given back.

    A fast form on a GPU lays those of convs channels-last, for both of them; the plain form would
    then run on other kernels, and end in other last bits.
    """
    assert isinstance(network, nn.Module)
    if for_good:
        _KEPT.pop(network, None)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_contiguous():
            module.weight.data = module.weight.data.contiguous()
    return network


def _compiled(network: Any) -> Any:
    return torch.compile(network, mode="max-autotune-no-cudagraphs", dynamic=False)
