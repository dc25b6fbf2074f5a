"""Which device and which number format the networks run in."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from sdcore.errors import InputError, unknown

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# float32 whose products CUDA rounds to 10 bits of mantissa: fast, and 6e-4 away in an SD 1.5 UNet.
TF32 = "tf32"
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The device of this name; None takes CUDA, else Apple's MPS, else the CPU.

    Raises InputError for a name that torch does not know, and for a device that is not there.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if device.type not in counts:
        raise unknown("device", str(name), counts)
    if (device.index or 0) >= counts[device.type]:
        there = ", ".join(kind for kind, count in counts.items() if count)
        raise InputError(f"device {str(name)!r} is not there; this machine has {there}")
    return device


def choose_dtype(name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """float32, bfloat16 or float16, also by their short names; None takes what suits the device.

    "tf32" is float32 to torch: see `float32_as`. Raises InputError for another name, and for tf32
    where there is no CUDA.
    """
    if name is None:
        # Halves are twice as fast on CUDA. On a CPU float16 is emulated and slow.
        return torch.float16 if device.type == "cuda" else torch.float32
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name == TF32:
        if device.type != "cuda":
            raise InputError(f"tf32 is how CUDA computes, and this is {device}: take float32")
        return torch.float32
    if not isinstance(name, str) or _SHORT.get(name, name) not in DTYPES:
        raise unknown("dtype", str(name), [*DTYPES, TF32])
    return DTYPES[_SHORT.get(name, name)]


def check_finite(numbers: Tensor, who: str, dtype: torch.dtype) -> None:
    """Raises InputError, naming the network that gave them, where `numbers` are not all finite.

    dtype: what it computes in; from a half another may help. Waits for the device.
    """
    # One pass. A sum may overflow where no number does: only then is each one asked.
    if math.isfinite(numbers.sum(dtype=torch.float32).item()) or numbers.isfinite().all():
        return
    name = str(dtype).removeprefix("torch.")
    advice = "" if dtype == torch.float32 else ": take --dtype float32"
    raise InputError(f"{who} gives numbers that are not finite, in {name}{advice}")


@contextmanager
def float32_as(tf32: bool) -> Iterator[None]:
    """In here CUDA computes float32 as it says, or as TF32; whatever it did before, it does again.

    torch by itself rounds convolutions to TF32, and not matrix products.
    """
    flags: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [flag.allow_tf32 for flag in flags]
    try:
        for flag in flags:
            flag.allow_tf32 = tf32
        yield
    finally:
        for flag, was in zip(flags, before, strict=True):
            flag.allow_tf32 = was


class _Precise(Protocol):
    @property
    def tf32(self) -> bool: ...


S = TypeVar("S", bound=_Precise)
P = ParamSpec("P")
T = TypeVar("T")


def in_own_precision(
    method: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[S, P], T]:
    """A method of networks that computes float32 as they say: their `tf32`."""

    @wraps(method)
    def computed(self: S, *args: P.args, **options: P.kwargs) -> T:
        with float32_as(self.tf32):
            return method(self, *args, **options)

    return computed
