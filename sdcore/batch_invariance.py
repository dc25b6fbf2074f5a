"""A picture must not depend on its neighbours in the batch, not even in its last bit.

On a CPU it would: kernels are chosen by the batch size, and their sums end 1e-6 apart. What holds
is that equal calls give equal numbers. So each picture's branches (cond, uncond) run in one call of
their own, the same call whatever the batch is. That costs 0 to 30 % on a CPU when several
pictures are drawn together, and nothing when there is one.

On a GPU a batch is one call, for its speed: there the picture of a batch and the same one drawn
alone agree to rounding, not to the bit. The command line draws one at a time unless it is told.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


class EachAlone:
    """A UNet that is called once for each picture of a batch, in place of once for all of them.

    unet: (x [N,C,h,w], t, **conditions, each [N,...]) -> [N,C,h,w].
    pictures: how many there are. The batch is N = branches * pictures rows, branch by branch.
    lengths: tokens of each picture's context before it repeats itself; None: it never does.
    """

    def __init__(
        self, unet: Callable[..., Tensor], pictures: int, lengths: Sequence[int] | None = None
    ) -> None:
        self.unet = unet
        self.pictures = pictures
        self.lengths = lengths
        self._parts: list[tuple[Mapping[str, Tensor], list[dict[str, Tensor]]]] = []

    def __call__(self, x: Tensor, t: float, **conditions: Tensor) -> Tensor:
        """What the UNet says of each row of x [N,C,h,w], asked picture by picture."""
        if self.pictures == 1:
            return self.unet(x, t, **conditions)
        each = self._each(conditions)
        outs = [self.unet(self._rows(x, i), t, **own) for i, own in enumerate(each)]
        # [pictures, branches, ...] -> branch by branch again
        return torch.stack(outs).transpose(0, 1).flatten(0, 1)

    def _each(self, conditions: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Every picture's own part of the conditions, the same tensors for the same ones again."""
        for known, parts in self._parts:
            if known.keys() == conditions.keys() and all(
                known[name] is value for name, value in conditions.items()
            ):
                return parts
        parts = []
        for i in range(self.pictures):
            own = {name: self._rows(value, i) for name, value in conditions.items()}
            if self.lengths is not None:
                own["context"] = own["context"][:, : self.lengths[i]].contiguous()
            parts.append(own)
        self._parts = [*self._parts[-3:], (conditions, parts)]  # a guidance's few sets of branches
        return parts

    def _rows(self, batch: Tensor, picture: int) -> Tensor:
        # A copy, since a view would start at another alignment in memory than a picture alone.
        return batch[picture :: self.pictures].clone(memory_format=torch.contiguous_format)
