"""The seam: a network, made ready to be called in a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sdcore.engine.calls import FastDecoderCall, FastUNetCall, Kept, untracked
from sdcore.engine.choose import choose, ops_for
from sdcore.engine.compiled import compiled_decoder, compiled_unet
from sdcore.engine.lossy import Lossy, check_fits
from sdcore.engine.ops import Ops, made_alike
from sdcore.engine.reuse import ReusingUNetCall
from sdcore.engine.rounded import RoundedOps
from sdcore.engine.unet import FastUNet
from sdcore.engine.vae import FastDecoder
from sdcore.models import VAE, UNet
from sdcore.models.layers import placement
from sdcore.models.reordered import Reordered, restore

T = TypeVar("T")


def ready(
    unet: UNet, timesteps: Sequence[float], engine: str = "auto", lossy: Lossy | None = None
) -> Callable[..., Tensor]:
    """The UNet as a callable (x, t, context, extra=None, **added), as the Denoiser takes it.

    timesteps: those that it will be asked at, as far as they are known; any other may come too.
    engine: as `choose` takes it. lossy: what is traded for time; then the callable remembers, and
    serves one loop: in falling time, as `sdcore.engine.reuse` says. Under "plain" it is the fast
    form all the same, of the layers' own operations.

    Raises InputError for an engine that is none, and where `lossy` cannot act.
    """
    chosen = choose(unet, engine)
    if lossy is not None and lossy != Lossy():
        check_fits(lossy, unet, engine)
        return ReusingUNetCall(unet, _lossy(unet, lossy, chosen.engine), timesteps, lossy)
    if chosen.engine == "compile":
        return compiled_unet(_plain(unet, for_good=True))
    if chosen.engine == "plain":
        return _plain(unet, chosen.why is not None)
    return FastUNetCall(unet, _fast(unet, FastUNet), timesteps)


def ready_decoder(vae: VAE, engine: str = "auto") -> Callable[[Tensor], Tensor]:
    """The VAE's `decode` as a callable."""
    chosen = choose(vae, engine)
    if chosen.engine == "fast":
        return FastDecoderCall(vae, _fast(vae, FastDecoder))
    if chosen.engine == "compile":
        return compiled_decoder(_plain(vae, for_good=True))
    return _plain(vae, chosen.why is not None).decode


_KEPT: WeakKeyDictionary[nn.Module, Kept] = WeakKeyDictionary()


def _state(network: nn.Module) -> tuple:
    """What tells whether weights are still the same: where they lie, and how often written to."""
    return tuple((id(p), _place(p), _writes(p)) for p in network.parameters())


def _place(parameter: Tensor) -> int:
    if isinstance(parameter, Reordered):
        return 0 if parameter.plain is None else parameter.plain.data_ptr()
    return parameter.data_ptr()


def _writes(parameter: Tensor) -> int:
    """How often it was written to; 0 where torch does not count, in inference mode."""
    try:
        return parameter._version
    except RuntimeError:
        return 0


def _fast(network: Any, form: Callable[..., Any], ops: Ops | None = None, *more: Any) -> Kept:
    """The network in this form, made once for these weights, layers and further arguments.

    ops: None: the fastest here.
    """
    ops = ops_for(*placement(network)) if ops is None else ops
    assert ops is not None
    said, kept = (ops.name, *more), _KEPT.get(network)
    if kept is None or kept.made_from != (said, _state(network)):
        _KEPT.pop(network, None)
        del kept  # before there is another one
        with untracked():
            if not ops.reorders:
                restore(network)
            made = form(network, ops, *more)
        kept = _KEPT[network] = Kept(made, (said, _state(network)))
    return kept


def _lossy(unet: UNet, lossy: Lossy, engine: str) -> Kept:
    """The fast form that does what is asked for; where layers stay as they are, of plain ones."""
    ops = Ops() if engine == "plain" else ops_for(*placement(unet))
    assert ops is not None
    if lossy.rounded is not None:
        half = Ops() if engine == "plain" else ops_for(placement(unet)[0], torch.bfloat16)
        ops = RoundedOps(Ops() if half is None else half)
    return _fast(unet, FastUNet, ops, *filter(None, [lossy.merging]))


def _plain(network: T, for_good: bool) -> T:
    """The network itself, its weights laid as they were read.

    for_good: it has become one that has no fast form; what that took is given back.

    A fast form on a CPU holds them in an order of its own; one on a GPU lays those of convs
    channels-last, for both of them, and the plain form would then run on other kernels, and end in
    other last bits.
    """
    assert isinstance(network, nn.Module)
    with untracked():
        restored = restore(network)
    if for_good or restored:
        _KEPT.pop(network, None)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_contiguous():
            with made_alike(module.weight):
                module.weight.data = module.weight.data.contiguous()
    return network
