"""A fast UNet that remembers: what it answers depends on what it was asked before.

So whoever runs a loop makes a new one for it. Each set of conditions (a picture's branches) has a
memory of its own; where time rises a new run begins, and nothing is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sdcore.engine.calls import FastUNetCall, Kept, Past, Told
from sdcore.engine.lossy import Lossy, step_of
from sdcore.engine.unet import FastUNet, Texts
from sdcore.errors import InputError
from sdcore.models import UNet


class ReusingUNetCall(FastUNetCall):
    """With DeepCache and T-GATE, as far as they were asked for."""

    def __init__(self, plain: UNet, kept: Kept, timesteps: Sequence[float], lossy: Lossy) -> None:
        super().__init__(plain, kept, timesteps)
        self.lossy = lossy
        self.falling = sorted(self.timesteps, reverse=True)

    def differentiable(self, *asked: object, **added: Tensor) -> Tensor:
        raise InputError(f"--lossy {self.lossy} cannot act where gradients are asked for")

    def answer(self, x: Tensor, t: float, told: Told) -> Tensor:
        step, network = step_of(t, self.falling), self.network
        assert isinstance(network, FastUNet)
        if t > told.past.t:
            told.past = Past()
        past, cache, gate = told.past, self.lossy.deepcache, self.lossy.tgate
        past.t = t
        gated = gate is not None and step >= gate.after * len(self.falling)
        texts = past.texts if gated and past.texts is not None else told.texts
        keep = gated and past.texts is None
        near, group = (0, -1) if cache is None else (cache.near, step // cache.every)

        def shallow(x: Tensor, shift: Tensor, deep: Tensor, texts: Texts) -> tuple[Tensor, ...]:
            return (network.shallow(x, shift, texts, near, deep).contiguous(),)

        def whole(x: Tensor, shift: Tensor, texts: Texts) -> tuple[Tensor, ...]:
            seen: list[Tensor] | None = [] if keep else None
            out, deep = network.whole(x, shift, texts, near, seen)
            return (out.contiguous(), *([] if cache is None else [deep]), *(seen or []))

        shift = told.shifts[t]
        if past.deep is not None and past.group == group and not keep:
            return self.asked(f"shallow {near}", shallow, [x, shift, past.deep], texts)[0]
        # Recordings outlive this loop: the name says everything that the answer holds.
        name = f"whole {near}, kept" if keep else f"whole {near}"
        out, *left = self.asked(name, whole, [x, shift], texts)
        if cache is not None:
            past.deep, past.group = left.pop(0), group
        if keep:
            past.texts = tuple(left)
        return out
