"""Which device and which number format the networks run in."""

import torch
from torch import Tensor

from sdcore.errors import InputError, unknown

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
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
    """float32, bfloat16 or float16, also by their short names; None takes what suits the device."""
    if name is None:
        # Halves are twice as fast on CUDA. On a CPU float16 is emulated and slow.
        return torch.float16 if device.type == "cuda" else torch.float32
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if _SHORT.get(name, name) not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return DTYPES[_SHORT.get(name, name)]


def check_finite(numbers: Tensor, who: str, dtype: torch.dtype) -> None:
    """Raises InputError, naming the network that gave them, where `numbers` are not all finite.

    dtype: what it computes in; from a half another may help. Waits for the device.
    """
    if numbers.isfinite().all():
        return
    name = str(dtype).removeprefix("torch.")
    advice = "" if dtype == torch.float32 else ": take --dtype float32"
    raise InputError(f"{who} gives numbers that are not finite, in {name}{advice}")
