"""Weights to a GPU, past the wait for the disk: two buffers that the GPU may read by itself.

While one is on its way, the next part is copied from the file into the other. From memory that is
not page-locked the driver copies so too, but the caller waits for every part.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SIZE = 1 << 25  # bytes of a buffer


class Upload:
    """CPU tensor -> the same on a device, on its way when this returns.

    Whatever is then asked of the device in the same stream comes after it. On a CPU the copy is
    made at once.
    """

    def __init__(self, device: torch.device, size: int = SIZE) -> None:
        self.device, self.on_gpu = device, device.type == "cuda"
        self.buffers = [
            torch.empty(size, dtype=torch.uint8, pin_memory=self.on_gpu) for _ in range(2)
        ]
        self.sent: list[Any] = [None, None]  # events: when the device has read it
        self.turn = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        out = torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device)
        if tensor.numel() == 0:
            return out
        parts = [
            each.reshape(-1).view(torch.uint8).split(len(self.buffers[0])) for each in (tensor, out)
        ]
        for stored, wanted in zip(*parts, strict=True):
            wanted.copy_(self._filled(stored), non_blocking=True)
            if self.on_gpu:
                self.sent[self.turn] = torch.cuda.Event()
                self.sent[self.turn].record(torch.cuda.current_stream(self.device))
            self.turn = 1 - self.turn
        return out

    def _filled(self, stored: Tensor) -> Tensor:
        """The bytes in the buffer whose turn it is, once the device has read what was in it."""
        if self.sent[self.turn] is not None:
            self.sent[self.turn].synchronize()
        return self.buffers[self.turn][: len(stored)].copy_(stored)
