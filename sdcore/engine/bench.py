"""How long a model takes here, in each form that its networks can be run in."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sdcore.engine.choose import choose
from sdcore.engine.ready import ready, ready_decoder
from sdcore.models import VAE, UNet
from sdcore.models.layers import placement


@dataclass(frozen=True)
class Timing:
    """Of one engine, in seconds: the first call, and those after it, one for each round."""

    first: float
    calls: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.calls)


def ratios(some: Timing, others: Timing) -> tuple[float, float, float]:
    """(median, least, largest) of the ratios of calls made in the same round.

    What else the machine does in a round slows both; a ratio of medians would not know.
    """
    each = [a / b for a, b in zip(some.calls, others.calls, strict=True)]
    return statistics.median(each), min(each), max(each)


def in_turns(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Every function once, then `rounds` times more, each in turn."""
    first = {name: _timed(function) for name, function in functions.items()}
    calls: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            calls[name].append(_timed(function))
    return {name: Timing(first[name], tuple(taken)) for name, taken in calls.items()}


def bench(
    unet: UNet, vae: VAE, size: tuple[int, int], engines: Sequence[str], rounds: int, batch: int = 1
) -> dict[str, dict[str, Timing]]:
    """A guided step's call of the UNet, and the decoding of a picture, by each of the engines.

    size: (height, width) in pixels. batch: pictures at a time, of which each step asks twice.
    Returns what is timed -> engine -> its timing. An engine that cannot run these networks as they
    are is left out. Numbers are random: they take as long as those of a picture.
    """
    with torch.inference_mode():
        return {
            "step": in_turns(_steps(unet, vae, size, engines, batch), rounds),
            "decode": in_turns(_decodings(vae, size, engines), rounds),
        }


def _steps(
    unet: UNet, vae: VAE, size: tuple[int, int], engines: Sequence[str], batch: int
) -> dict[str, Callable[[], Any]]:
    config, (device, dtype) = unet.config, placement(unet)
    rng = torch.Generator().manual_seed(0)
    rows, (height, width) = 2 * batch, (side // vae.config.factor for side in size)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(rows, *shape, generator=rng).to(device, dtype)

    told = {"context": draw(77, config.cross_attention_dim)}
    inputs = config.inputs
    if inputs.further:
        told["extra"] = draw(inputs.further, height, width)
    if (numbers := inputs.likely_numbers()) is not None:
        told["text_embeds"] = draw(inputs.vector - numbers.count * inputs.each)
        told["time_ids"] = draw(numbers.count).abs()
    if inputs.scale_width is not None:
        told["timestep_cond"] = draw(inputs.scale_width)
    x = draw(config.out_channels, height, width)
    calls = {name: ready(unet, [500.0], name) for name in engines if _runs(unet, name)}
    return {name: lambda call=call: call(x, 500.0, **told) for name, call in calls.items()}


def _decodings(
    vae: VAE, size: tuple[int, int], engines: Sequence[str]
) -> dict[str, Callable[[], Any]]:
    device, dtype = placement(vae)
    height, width = (side // vae.config.factor for side in size)
    shape = (1, vae.config.latent_channels, height, width)
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    calls = {name: ready_decoder(vae, name) for name in engines if _runs(vae, name)}
    return {name: lambda call=call: call(z) for name, call in calls.items()}


def _runs(network: torch.nn.Module, engine: str) -> bool:
    return choose(network, engine).engine == {"auto": "fast"}.get(engine, engine)


def _timed(function: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun
