"""CUDA graphs: a sequence of launches recorded once for a shape, and sent off in one go after that.

A UNet is several hundred small kernels, and Python is slower at asking for them than a large GPU is
at running them. A graph is the same kernels on the same numbers: equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM = 2  # calls before a recording: libraries choose kernels and workspaces in the first ones


class Graph:
    """A function of tensors on a GPU, recorded for the shapes of its first inputs.

    function: Tensors -> a tuple of Tensors, with no look at their values on the way.

    `held` says whose inputs lie in it now: `load` puts others there, and those that stay the same
    from call to call need not be put there again.
    """

    def __init__(self, function: Callable[..., tuple], inputs: Sequence[Tensor]) -> None:
        self.inputs = [value.detach().clone() for value in inputs]
        self.held: object = None
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.out = function(*self.inputs)

    def load(self, values: Sequence[Tensor], begin: int = 0) -> None:
        """Put values where the graph reads its inputs, from number `begin` on."""
        for place, value in zip(self.inputs[begin:], values, strict=False):
            place.copy_(value)

    def __call__(self) -> tuple[Tensor, ...]:
        """The results for what is loaded, the caller's own to keep."""
        self.graph.replay()
        return tuple(out.clone() for out in self.out)


def supported(device: torch.device) -> bool:
    """Whether this torch records graphs on this device."""
    return device.type == "cuda" and hasattr(torch.cuda, "CUDAGraph")
