"""What may be traded for time: only where it is asked for by name, and written into the picture.

    deepcache:every=3,near=2    deep features of every third step serve the two after it
    tome:ratio=0.5,levels=1     half of the tokens are merged in self-attention
    tgate:after=0.4             attention to the text as it was after 0.4 of the steps
    bf16                        products in bfloat16 inside of a float32 network

Several are joined by "+". docs/speed.md shows what each gains and what it costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from sdcore.engine.choose import special
from sdcore.engine.merging import Merging
from sdcore.errors import InputError, unknown
from sdcore.models import UNet
from sdcore.models.layers import placement
from sdcore.written import Written, format, parse


@dataclass(frozen=True)
class DeepCache:
    """Deep features reused (Ma et al. 2023, arXiv 2312.00858).

    every: steps that share them: the first of these asks the whole network. near: how many layers
    of the way up, and as many skips, are asked in each step.
    """

    every: int = 3
    near: int = 2


@dataclass(frozen=True)
class TGate:
    """Attention to the text, kept from a step on (Zhang et al. 2024, arXiv 2404.02747).

    after: the share of the steps after which it is kept. The paper also leaves guidance out from
    there on, which here is `guidance="cfg+interval:low=..."`.
    """

    after: float = 0.4


@dataclass(frozen=True)
class Rounded:
    """Products in bfloat16: `sdcore.engine.rounded`."""


_KINDS: dict[str, tuple[str, type]] = {  # as it is written -> the field of Lossy, and its type
    "deepcache": ("deepcache", DeepCache),
    "tome": ("merging", Merging),
    "tgate": ("tgate", TGate),
    "bf16": ("rounded", Rounded),
}
_AT_LEAST_ONE, _SHARE = "a whole number of at least 1", "a number between 0 and 1"


@dataclass(frozen=True)
class Lossy:
    """What is traded; None where nothing of that kind is."""

    deepcache: DeepCache | None = None
    merging: Merging | None = None
    tgate: TGate | None = None
    rounded: Rounded | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Of its written form. Raises InputError for a name, an option or a number that is none."""
        parts: dict[str, Any] = {}
        for part in text.split("+"):
            written = parse(part)
            if written.file is not None or written.name not in _KINDS:
                raise unknown("lossy option", written.name or part, _KINDS)
            name, kind = _KINDS[written.name]
            if name in parts:
                raise InputError(f"{written.name} stands twice in {text!r:.80}")
            parts[name] = _made(written, kind)
        return cls(**parts)

    def __str__(self) -> str:
        """As `read` takes it, with every number."""
        there = [(written, getattr(self, name)) for written, (name, _) in _KINDS.items()]
        return "+".join(
            format(Written(name, dataclasses.asdict(part))) for name, part in there if part
        )


def _made(written: Written, kind: type) -> Any:
    """The part, with its numbers checked."""
    known: dict[str, type] = {field.name: type(field.default) for field in dataclasses.fields(kind)}
    numbers: dict[str, Any] = {}
    given: dict[str, Any] = dict(written.options)
    for name, value in given.items():
        if name not in known:
            raise unknown(f"option of {written.name}", name, known or ["none"])
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if known[name] is int and not (isinstance(value, int) and number and value >= 1):
            raise InputError(f"{written.name}'s {name} is {_AT_LEAST_ONE}, not {value!r}")
        if known[name] is float and not (number and 0 < float(value) < 1):
            raise InputError(f"{written.name}'s {name} is {_SHARE}, not {value!r}")
        numbers[name] = known[name](value)
    return kind(**numbers)


def check_fits(lossy: Lossy, unet: UNet, engine: str) -> None:
    """Raises InputError where something could not act on this network, as it is now."""
    why = special(unet)
    if why is not None or engine == "compile":
        raise InputError(
            f"--lossy {lossy} cannot act: " + (why or "--engine compile runs the network as it is")
        )
    config = unet.config
    layers = sum(count + 1 for count in config.layers)
    if lossy.deepcache is not None and lossy.deepcache.near >= layers:
        raise InputError(
            f"deepcache's near is at most {layers - 1} here: the network has {layers} layers on "
            f"the way up, not {lossy.deepcache.near}"
        )
    attends = any(hasattr(block, "attentions") for block in unet.down_blocks)
    if (lossy.merging or lossy.tgate) and not attends:
        raise InputError(f"--lossy {lossy} cannot act: the network has no attention to the text")
    if lossy.rounded is not None and (dtype := placement(unet)[1]) != torch.float32:
        said = str(dtype).removeprefix("torch.")
        raise InputError(f"--lossy bf16 is for float32, and this network computes in {said}")


def step_of(t: float, timesteps: Sequence[float]) -> int:
    """The number of the step that asks at t: of the last of the falling `timesteps` not below."""
    return max(sum(each >= t - 1e-6 for each in timesteps) - 1, 0)
