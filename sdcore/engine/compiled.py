"""Networks by torch.compile: minutes for each new shape, and a compiler on the machine.

The compiled code is of the class and not of one network, so that the next network, and the next
run of this one, find it; torch looks at each call's shapes and at the network itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sdcore.engine.calls import untracked
from sdcore.errors import InputError
from sdcore.models import VAE, UNet


def compiled_unet(unet: UNet) -> Callable[..., Tensor]:
    """(x, t, context, extra=None, **added), as the UNet itself."""

    def call(x: Tensor, t: float, *told: Any, **added: Any) -> Tensor:
        # A number would be part of the code, which would then be compiled anew for each.
        time = torch.tensor(float(t), device=x.device)
        return _without_gradients(unet.forward, UNet.forward, unet, x, time, *told, **added)

    return call


def compiled_decoder(vae: VAE) -> Callable[[Tensor], Tensor]:
    """The VAE's `decode`."""
    return lambda latents: _without_gradients(vae.decode, VAE.decode, vae, latents)


def _without_gradients(
    plain: Callable[..., Tensor],
    method: Callable[..., Tensor],
    network: Any,
    *given: Any,
    **more: Any,
) -> Tensor:
    """The method compiled; where gradients are asked for the plain one.

    Raises InputError where it cannot be compiled.
    """
    tensors = [value for value in (*given, *more.values()) if isinstance(value, Tensor)]
    if torch.is_grad_enabled() and any(value.requires_grad for value in tensors):
        return plain(*given, **more)
    from torch._dynamo.exc import TorchDynamoException  # which takes a second to import

    with untracked():
        try:
            return _compiled(method, tensors[0].device.type)(network, *given, **more)
        except TorchDynamoException as error:
            said = " ".join(str(error).split())
            raise InputError(f"--engine compile cannot compile here: {said:.200}") from error


@cache
def _compiled(method: Callable[..., Tensor], device: str) -> Callable[..., Tensor]:
    """torch's own graphs would overwrite what they have returned; so there are none."""
    mode = "max-autotune-no-cudagraphs" if device == "cuda" else None
    return torch.compile(method, mode=mode, dynamic=False)
