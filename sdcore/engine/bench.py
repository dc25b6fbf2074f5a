"""How long a model takes here, in each form that its networks can be run in."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
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


def in_turns(ask: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Every engine once, then `rounds` times more, each in turn.

    ask: of each engine; it says how long it took, in seconds.
    """
    first = {name: one() for name, one in ask.items()}
    calls: dict[str, list[float]] = {name: [] for name in ask}
    for _ in range(rounds):
        for name, one in ask.items():
            calls[name].append(one())
    return {name: Timing(first[name], tuple(taken)) for name, taken in calls.items()}


def works(
    unet: UNet, vae: VAE, size: tuple[int, int], engine: str, batch: int = 1
) -> dict[str, Callable[[], Any]]:
    """A guided step's call of the UNet, and the decoding of a picture, as this engine runs them.

    size: (height, width) in pixels. batch: pictures at a time, of which each step asks twice.
    Returns "step" and "decode"; what the engine cannot run as it is, is left out. Numbers are
    random: they take as long as those of a picture.
    """
    found: dict[str, Callable[[], Any]] = {}
    if _runs(unet, engine):
        found["step"] = _step(unet, vae, size, engine, batch)
    if _runs(vae, engine):
        found["decode"] = _decoding(vae, size, engine)
    return found


def _step(
    unet: UNet, vae: VAE, size: tuple[int, int], engine: str, batch: int
) -> Callable[[], Any]:
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
    x, call = draw(config.out_channels, height, width), ready(unet, [500.0], engine)
    return lambda: call(x, 500.0, **told)


def _decoding(vae: VAE, size: tuple[int, int], engine: str) -> Callable[[], Any]:
    device, dtype = placement(vae)
    height, width = (side // vae.config.factor for side in size)
    shape = (1, vae.config.latent_channels, height, width)
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    decode = ready_decoder(vae, engine)
    return lambda: decode(z)


def _runs(network: torch.nn.Module, engine: str) -> bool:
    return choose(network, engine).engine == {"auto": "fast"}.get(engine, engine)


def timed(work: Callable[[], Any]) -> float:
    """Seconds until it is done, on a GPU too."""
    begun = time.perf_counter()
    with torch.inference_mode():
        work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun
